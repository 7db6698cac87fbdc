"""How the application is run: one object, made from the command line or by a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from ..options import Timeouts, Tls
from ..summaries import SummaryOptions
from .http.hosts import Hosts

LongVideo = Literal["auto", "always", "never"]
"""When videos become notes: where the context has no room for what would be looked at, always, never."""


@dataclass(frozen=True)
class Settings:
    """Sizes are bytes, times seconds. Bounds that begin with `page_` are those of the page; the API has its own.

    Raises ValueError for a value that is not accepted.
    """

    media_root: Path
    """The server's media root as this process sees it: paths are looked up here, uploads are kept below it."""
    url: str | None = None
    """`host:port` of Triton's gRPC port; None: QWEN3_VL_URL or 127.0.0.1:8001."""
    tls: Tls | None = None
    """For the connection to Triton."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    api: bool = True
    """Whether the API is served."""
    page: bool | None = None
    """Whether the page is served, which asks for no key; None: unless there are API keys."""
    models: tuple[str, ...] = ("qwen3-vl",)
    """The names that requests may ask for; the first is the one that answers."""
    api_keys: Mapping[str, str] = field(default_factory=dict)
    """Keys by the names of their owners; without any, everybody is the owner `anonymous`."""
    allowed_hosts: frozenset[str] = frozenset()
    """Where http(s) media may be fetched from: `host`, or `host:port` for another port than the scheme's."""
    cors_origins: tuple[str, ...] = ()
    """Pages, by their origins, that may call the API."""
    hosts: Hosts = field(default_factory=Hosts)
    """The names that it is reached under."""
    share_cache: bool = False
    """Whether entries of the server's cache that come from one owner serve the others too; at an API without keys
    they do."""
    long_video: LongVideo = "auto"
    """For chats that do not say."""
    max_body_bytes: int = 256 * 2**20
    """A request with its data URIs; uploads are bounded by their quota instead."""
    page_max_body_bytes: int = 4 * 2**20
    """A question with its conversation."""
    max_body_values: int = 50_000
    """A request's commas, colons and opening brackets."""
    max_held_bytes: int = 2**30
    """The bodies of all requests that run; one owner's may hold half of it."""
    max_fetch_bytes: int = 2 * 2**30
    max_fetch_seconds: float = 60.0
    upload_quota_bytes: int = 20 * 2**30
    upload_capacity_bytes: int = 200 * 2**30
    upload_expiry_seconds: float = 24 * 3600.0
    upload_max_files: int = 10_000
    """One owner may keep so many."""
    uploads_at_once: int = 8
    """One owner's."""
    upload_free_bytes: int | None = None
    """Uploads leave so much free on the disk; None: 1 GiB, or a twentieth of a small disk."""
    parts_in_flight: int = SummaryOptions.in_flight
    """Requests about parts of long videos that one owner has at the server at the same time."""
    requests_per_minute: int = 600
    """One owner's, for all but the names of models; as many may come at once after a quiet minute."""
    page_requests_per_minute: int = 300
    """One user's lists of files, uploads, deletions, looks, questions and summaries."""
    views_per_minute: int = 1200
    """One user's pictures, and contents as players ask for them."""
    concurrent_requests: int = 64
    """Chat completions and summaries of one owner that run at the same time."""
    page_concurrent_requests: int = 8
    """Questions and summaries of one user that run at the same time."""
    wrong_keys_per_minute: int = 60
    """From one address; then it may use no key that it did not use before."""
    new_users_per_minute: int = 30
    """From one address."""

    def __post_init__(self) -> None:
        if not self.media_root.is_dir():
            raise ValueError(f"the media root {str(self.media_root)!r} is not a folder")
        if not self.models:
            raise ValueError("no model name is given; at least one is needed")
        if len(set(self.api_keys.values())) != len(self.api_keys):
            raise ValueError("two owners have the same API key; each needs its own")
        if not self.api and not self.serves_page:
            raise ValueError("neither the API nor the page is served; at least one is needed")
        for each in fields(self):
            value = getattr(self, each.name)
            is_bound = isinstance(value, int | float) and not isinstance(value, bool)
            # All of the disk may be used.
            if is_bound and not value > 0 and each.name != "upload_free_bytes":
                raise ValueError(f"{each.name} is {value}; a number above 0 is accepted")

    @property
    def serves_page(self) -> bool:
        return not self.api_keys if self.page is None else self.page

    @property
    def uploads(self) -> Path:
        """Where uploads are kept."""
        return self.media_root / "uploads"

    @property
    def journals(self) -> Path:
        """Answers about parts of long videos, in a folder for each owner."""
        return self.uploads / "journals"
