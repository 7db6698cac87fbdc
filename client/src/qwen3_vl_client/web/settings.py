"""How the page is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..front.hosts import Hosts
from ..summaries import SummaryOptions


@dataclass(frozen=True)
class Settings:
    """Sizes are bytes, times seconds."""

    media_root: Path
    """Triton's media root as this process sees it: uploads are kept below it."""
    url: str | None = None
    """`host:port` of Triton's gRPC port; None: QWEN3_VL_URL or 127.0.0.1:8001."""
    upload_quota_bytes: int = 20 * 2**30
    upload_capacity_bytes: int = 200 * 2**30
    upload_expiry_seconds: float = 24 * 3600.0
    upload_max_files: int = 10_000
    """That one owner may keep."""
    uploads_at_once: int = 8
    """Of one owner."""
    upload_free_bytes: int | None = None
    """What uploads leave free on the disk; None: 1 GiB, or a twentieth of a small disk."""
    parts_in_flight: int = SummaryOptions.in_flight
    """Requests that a long video's summary has at the server at the same time."""
    hosts: Hosts = field(default_factory=Hosts)
    """The names that it is reached under."""
    share_cache: bool = False
    """Whether what the server remembers of one user's requests serves the others' too."""
    requests_per_minute: int = 300
    """Of one user: lists of files, uploads, deletions, looks, questions and summaries."""
    views_per_minute: int = 1200
    """Of one user: pictures, and contents as players ask for them."""
    concurrent_requests: int = 8
    """Questions and summaries of one user that run at the same time."""
    new_users_per_minute: int = 30
    """From one address."""
    max_body_bytes: int = 4 * 2**20
    """Of a question with its conversation; uploads are bounded by their quota instead."""
    max_body_values: int = 50_000
    """Its commas, colons and opening brackets."""
    max_held_bytes: int = 2**30
    """Of the bodies of all requests that run; one user's may hold half of it."""

    def __post_init__(self) -> None:
        if not self.media_root.is_dir():
            raise ValueError(f"the media root {str(self.media_root)!r} is not a folder")
        for name in (
            "upload_quota_bytes",
            "upload_capacity_bytes",
            "upload_expiry_seconds",
            "upload_max_files",
            "uploads_at_once",
            "parts_in_flight",
            "requests_per_minute",
            "views_per_minute",
            "concurrent_requests",
            "new_users_per_minute",
            "max_body_bytes",
            "max_body_values",
            "max_held_bytes",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; a number above 0 is accepted")
