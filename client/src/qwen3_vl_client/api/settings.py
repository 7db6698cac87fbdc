"""How an API is run: one object, made from the command line or by a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..front.hosts import Hosts
from ..options import Timeouts, Tls
from .long_videos import LongVideo

UPLOADS_FOLDER = "uploads"
"""Where uploads are kept below the media root."""
JOURNALS_FOLDER = "journals"
"""Below the uploads: what was noted of long videos."""


@dataclass(frozen=True)
class Settings:
    """Sizes are bytes, times seconds.

    Raises ValueError for a value that is not accepted.
    """

    media_root: Path
    """The server's media root as this process sees it: paths are looked up here, uploads are kept below it."""
    url: str | None = None
    """`host:port` of Triton's gRPC port; None: QWEN3_VL_URL or 127.0.0.1:8001."""
    tls: Tls | None = None
    """Of the connection to Triton."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    models: tuple[str, ...] = ("qwen3-vl",)
    """The names that requests may ask for; the first is the one that answers."""
    api_keys: Mapping[str, str] = field(default_factory=dict)
    """Keys by the names of their owners; without any, everybody is the owner `anonymous`."""
    allowed_hosts: frozenset[str] = frozenset()
    """Where http(s) media may be fetched from: `host`, or `host:port` for another port than the scheme's."""
    cors_origins: tuple[str, ...] = ()
    """Pages, by their origins, that may call."""
    hosts: Hosts = field(default_factory=Hosts)
    """The names that it is reached under."""
    share_cache: bool = False
    """Whether what the server remembers of one owner's requests serves the others' too; without keys it does."""
    long_video: LongVideo = "auto"
    """Of chats that do not say."""
    max_body_bytes: int = 256 * 2**20
    """Of a request with its data URIs; uploads are bounded by their quota instead."""
    max_body_values: int = 50_000
    """Of a request: its commas, colons and opening brackets."""
    max_held_bytes: int = 2**30
    """Of the bodies of all requests that run; one owner's may hold half of it."""
    max_fetch_bytes: int = 2 * 2**30
    max_fetch_seconds: float = 60.0
    upload_quota_bytes: int = 20 * 2**30
    upload_capacity_bytes: int = 200 * 2**30
    upload_expiry_seconds: float = 24 * 3600.0
    upload_max_files: int = 10_000
    """That one owner may keep."""
    uploads_at_once: int = 8
    """Of one owner."""
    upload_free_bytes: int | None = None
    """What uploads leave free on the disk; None: 1 GiB, or a twentieth of a small disk."""
    requests_per_minute: int = 600
    """Of one owner, for all but the names of models; as many may come at once after a quiet minute."""
    concurrent_requests: int = 64
    """Chat completions and summaries of one owner that run at the same time."""
    wrong_keys_per_minute: int = 60
    """From one address; then it may use no key that it did not use before."""

    def __post_init__(self) -> None:
        if not self.media_root.is_dir():
            raise ValueError(f"the media root {str(self.media_root)!r} is not a folder")
        if not self.models:
            raise ValueError("no model name is given; at least one is needed")
        if len(set(self.api_keys.values())) != len(self.api_keys):
            raise ValueError("two owners have the same API key; each needs its own")
        for name in (
            "max_body_bytes",
            "max_body_values",
            "max_held_bytes",
            "max_fetch_bytes",
            "max_fetch_seconds",
            "upload_quota_bytes",
            "upload_capacity_bytes",
            "upload_expiry_seconds",
            "upload_max_files",
            "uploads_at_once",
            "requests_per_minute",
            "concurrent_requests",
            "wrong_keys_per_minute",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; a number above 0 is accepted")
