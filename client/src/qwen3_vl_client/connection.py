"""Where the server is and how it is reached: shared by both clients."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from .options import Timeouts, Tls

DEFAULT_URL = "127.0.0.1:8001"
STOP_SECONDS = 2.0
"""How long a closing stream may take to tell the server to stop."""

ENDING_SECONDS = 1.0
"""How long a request that was stopped may take to end by itself. Only then is its call cancelled: Triton 2.51 has
crashed, about once in a thousand, on calls that were cancelled while it answered them."""

_ACCESS_HEADER = "triton-grpc-protocol-qwen3-vl-access"
_UNLIMITED_MESSAGE = 2**31 - 1


@dataclass(frozen=True)
class Address:
    """A server's gRPC address, with all that a channel to it needs."""

    url: str
    credentials: grpc.ChannelCredentials | None
    metadata: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, Any], ...]


def address(url: str | None, tls: Tls | None, headers: Mapping[str, str] | None, timeouts: Timeouts) -> Address:
    """Checks and completes what a client was given; without a url, QWEN3_VL_URL or this machine's port 8001.

    QWEN3_VL_ACCESS, if it is set, is the secret of a server that restricts its calls.

    Raises:
        ValueError: the url is not `host:port`.
        OSError: a certificate or key cannot be read.
    """
    url = url or os.environ.get("QWEN3_VL_URL") or DEFAULT_URL
    if not re.fullmatch(r"[^/\s]+:\d+", url):
        raise ValueError(f"url is {url!r}; host:port of the server's gRPC port is accepted, like {DEFAULT_URL}")
    # gRPC's own bound on one attempt to connect; a call fails when its attempt does. Later attempts come soon, so that
    # a client outlives a restart of its server.
    connect_milliseconds = int(min(timeouts.connect, 86_400.0) * 1000)
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    if access := os.environ.get("QWEN3_VL_ACCESS"):
        sent[_ACCESS_HEADER] = access
    return Address(
        url=url,
        credentials=None if tls is None else _credentials(tls),
        metadata=tuple(sent.items()),
        options=(
            ("grpc.max_send_message_length", _UNLIMITED_MESSAGE),
            ("grpc.max_receive_message_length", _UNLIMITED_MESSAGE),
            ("grpc.min_reconnect_backoff_ms", connect_milliseconds),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ),
    )


def grpc_timeout(seconds: float) -> float | None:
    """A limit as gRPC takes it; infinity is none."""
    return None if math.isinf(seconds) else seconds


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    def contents(path: str | Path | None) -> bytes | None:
        return None if path is None else Path(path).read_bytes()

    return grpc.ssl_channel_credentials(
        root_certificates=contents(tls.root_certificates),
        private_key=contents(tls.private_key),
        certificate_chain=contents(tls.certificate_chain),
    )
