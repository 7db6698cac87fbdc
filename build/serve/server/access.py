"""Closes Triton's own APIs with secrets that are drawn at each start, and never shown.

Triton answers a restricted API only if a header has the right value. Control (models, logs, traces, shared
memory) is the supervisor's alone: whoever loads a model runs code. Behind a gate the rest is restricted too: then
nobody but the gate and the supervisor speaks to Triton itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONTROL: Sequence[str] = ("model-repository", "shared-memory", "logging", "trace")
USE: Sequence[str] = ("health", "metadata", "inference", "model-config", "statistics")
CONTROL_HEADER = "qwen3-vl-control"
ACCESS_HEADER = "qwen3-vl-access"

_SECRET_BYTES = 32


@dataclass(frozen=True)
class Access:
    """The secrets of one server."""

    control: str
    """The secret for control."""
    access: str = ""
    """The secret for everything else; empty: it is open."""

    @classmethod
    def draw(cls, *, gated: bool) -> Access:
        """Fresh secrets; `gated`: Triton's ports are for a gate in front of them only."""
        return cls(secrets.token_hex(_SECRET_BYTES), secrets.token_hex(_SECRET_BYTES) if gated else "")

    def headers(self) -> Mapping[str, str]:
        """The supervisor's headers over HTTP."""
        return {CONTROL_HEADER: self.control, ACCESS_HEADER: self.access}

    def options(self) -> Mapping[str, str]:
        """Triton's options by what may be seen of them: each is to be given as its value, and shown as its key."""
        restricted = {CONTROL_HEADER: (CONTROL, self.control)}
        if self.access:
            restricted[ACCESS_HEADER] = (USE, self.access)
        return {
            f"--{option}={','.join(apis)}:{header}=(hidden)": f"--{option}={','.join(apis)}:{header}={secret}"
            for header, (apis, secret) in restricted.items()
            for option in ("http-restricted-api", "grpc-restricted-protocol")
        }
