"""The parameters of config.pbtxt, checked once at start."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from preprocess.directories import default_directory
from preprocess.media.library import MAX_REQUEST_PIXELS, MAX_SECONDS
from preprocess.request.request import Limits
from preprocess.workers.worker import WorkerLimits

log = logging.getLogger(__name__)

_OLD_NAMES = {"memory_directory": "cache_directory", "memory_bytes": "cache_bytes"}
"""Names that are taken for one more release, and the new ones."""


@dataclass(frozen=True)
class Parameters:
    """See config.pbtxt for what each one means."""

    checkpoint: Path
    media_root: Path | None
    credits_directory: Path
    context_length: int | None
    chunk_tokens: int
    heartbeat_seconds: float
    max_requests: int
    max_attachments: int
    max_frame_pixels: int
    cache_directory: Path
    cache_bytes: int = 0
    max_request_pixels: int = MAX_REQUEST_PIXELS
    max_text_bytes: int = 4 << 20
    max_bytes_in_flight: int | None = None
    """None: a quarter of this machine's memory."""
    max_video_seconds: float = MAX_SECONDS
    speech_model: Path | None = None
    workers: int = 2
    max_workers: int | None = None
    """None: by this machine's cores."""
    max_decoding_bytes: int | None = None
    """None: a quarter of this machine's memory."""
    worker_limits: WorkerLimits = field(default_factory=WorkerLimits)

    @property
    def limits(self) -> Limits:
        """The bounds on a request."""
        return Limits(self.max_attachments, self.max_text_bytes)

    @classmethod
    def from_config(cls, values: Mapping[str, str], version_folder: Path) -> Parameters:
        """From the strings of config.pbtxt; raises ValueError naming the parameter, its value and what is accepted."""
        read = _Reader(_by_new_names(values))

        def directory(purpose: str) -> Path:
            return read.optional_path(f"{purpose}_directory") or default_directory(purpose)

        return cls(
            checkpoint=version_folder / read.text("checkpoint"),
            media_root=read.optional_path("media_root"),
            credits_directory=directory("credits"),
            context_length=read.optional_integer("context_length", 1),
            chunk_tokens=read.integer("chunk_tokens", 1),
            heartbeat_seconds=read.seconds("heartbeat_seconds"),
            max_requests=read.integer("max_requests", 1),
            max_attachments=read.integer("max_attachments", 0),
            max_frame_pixels=read.integer("max_frame_pixels", 1),
            cache_directory=directory("cache"),
            cache_bytes=read.integer("cache_bytes", 0),
            max_request_pixels=read.integer("max_request_pixels", 1),
            max_text_bytes=read.integer("max_text_bytes", 1),
            max_bytes_in_flight=read.optional_integer("max_bytes_in_flight", 1),
            max_video_seconds=read.seconds("max_video_seconds"),
            speech_model=read.optional_path("speech_model"),
            workers=read.integer("workers", 1),
            max_workers=read.optional_integer("max_workers", 1),
            max_decoding_bytes=read.optional_integer("max_decoding_bytes", 1),
            worker_limits=WorkerLimits(
                memory_bytes=read.integer("worker_memory_bytes", 1),
                task_cpu_seconds=read.integer("worker_task_cpu_seconds", 1),
                image_cpu_seconds=read.integer("worker_image_cpu_seconds", 1),
                cpu_seconds=read.integer("worker_cpu_seconds", 1),
                stall_seconds=read.seconds("worker_stall_seconds"),
            ),
        )


def _by_new_names(values: Mapping[str, str]) -> Mapping[str, str]:
    """A configuration that still has an old name means it: the new one may be there by default."""
    renamed = dict(values)
    for old, new in _OLD_NAMES.items():
        if renamed.get(old, "").strip():
            log.warning("parameter %s is now called %s; the old name is taken for one more release", old, new)
            renamed[new] = renamed[old]
    return renamed


@dataclass(frozen=True)
class _Reader:
    values: Mapping[str, str]

    def text(self, name: str) -> str:
        value = self._value(name)
        if not value:
            raise ValueError(f"parameter {name} is empty; a value is needed")
        return value

    def integer(self, name: str, low: int) -> int:
        value = self.text(name)
        # Python makes no integer of a longer one, and none of those fits where it goes.
        if not value.isascii() or not value.isdigit() or len(value) > 18 or int(value) < low:
            raise ValueError(f"parameter {name} is {value!r}; an integer of at least {low} is accepted")
        return int(value)

    def optional_integer(self, name: str, low: int) -> int | None:
        return self.integer(name, low) if self._value(name) else None

    def optional_path(self, name: str) -> Path | None:
        value = self._value(name)
        return Path(value) if value else None

    def seconds(self, name: str) -> float:
        value = self.text(name)
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise ValueError(f"parameter {name} is {value!r}; a number of seconds above 0 is accepted")
        return seconds

    def _value(self, name: str) -> str:
        return self.values.get(name, "").strip()
