"""Ask questions about video: a client for Qwen3-VL served by Triton Inference Server."""

from .aio import AsyncClient, AsyncStream
from .client import Client, Stream
from .errors import (
    Cancelled,
    InternalError,
    InvalidRequest,
    NotFound,
    Qwen3VLError,
    ResourceExhausted,
    ServerUnavailable,
    Timeout,
)
from .options import SamplingParameters, Timeouts, Tls, VideoOptions
from .results import Answer, Event, Look, LookedMedium, Medium, Progress, TextDelta, Timings, Usage
from .summaries.summarizing import SummaryOptions
from .summaries.summary import Summary

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "Cancelled",
    "Client",
    "Event",
    "InternalError",
    "InvalidRequest",
    "Look",
    "LookedMedium",
    "Medium",
    "NotFound",
    "Progress",
    "Qwen3VLError",
    "ResourceExhausted",
    "SamplingParameters",
    "ServerUnavailable",
    "Stream",
    "Summary",
    "SummaryOptions",
    "TextDelta",
    "Timeout",
    "Timeouts",
    "Timings",
    "Tls",
    "Usage",
    "VideoOptions",
]
