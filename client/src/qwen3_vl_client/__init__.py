"""Ask questions about video: a client for Qwen3-VL served by Triton Inference Server.

client: the client for ordinary code
aio: the client for asyncio
exchange: one request and its responses, whatever sends them
request: the messages that are sent
messages: conversations in OpenAI's form
connection: the server's address, and all that a channel to it needs
engine_probe: asks the decoder for its engine's state
media: local videos and images, checked before anything is sent
options: how to generate, what to look at, how long to wait, how to connect
results: answers, and what is told while they are made
errors: why there is no answer
disk: files on a disk that may be full

summaries/      summaries of video of any length
uploads/        files that users uploaded, below the server's media root
command_line/   the command `qwen3-vl`
front/          the OpenAI-compatible API and the web page
"""

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
