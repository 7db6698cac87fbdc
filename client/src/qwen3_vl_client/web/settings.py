"""How the page is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    parts_in_flight: int = SummaryOptions.in_flight
    """Requests that a long video's summary has at the server at the same time."""

    def __post_init__(self) -> None:
        if not self.media_root.is_dir():
            raise ValueError(f"the media root {str(self.media_root)!r} is not a folder")
