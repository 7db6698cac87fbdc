"""The gate's settings: one JSON object on a line of its standard input, so that no command line shows its secret."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

_MEBIBYTE = 2**20


@dataclass(frozen=True)
class GateSettings:
    """Where the gate listens, the server behind it, and its bounds."""

    host: str
    grpc_port: int
    http_port: int
    triton_grpc: str
    """`127.0.0.1:PORT`"""
    triton_http: str
    """`http://127.0.0.1:PORT`"""
    access: str
    """The secret that opens Triton's APIs."""
    metrics_port: int = 0
    """0: metrics are not served."""
    triton_metrics: str = ""
    public_hosts: tuple[str, ...] = ()
    """Names that clients may know this machine by, beside its addresses."""

    max_request_mib: int = 512
    """The longest gRPC message."""
    max_json_mib: int = 8
    """The longest body of an HTTP request."""
    max_held_mib: int = 1024
    """Requests that have arrived and not yet gone on, all together."""
    max_calls: int = 1024
    """gRPC calls at the same time, and as many HTTP requests."""
    max_connection_calls: int = 256
    """gRPC calls at the same time on one connection."""
    max_connections: int = 1024
    """Connections to each port."""
    idle_seconds: float = 300.0
    """A connection, or a stream that waits for no answer, ends after so long without a message."""
    silence_seconds: float = 900.0
    """A stream that waits for an answer ends after so long without a message."""
    stall_seconds: float = 60.0
    """A client may take this long to send or to read the next piece."""
    drain_seconds: float = 5.0
    """Requests may go on for this long when the gate is told to end."""

    def __post_init__(self) -> None:
        if not self.access:
            raise ValueError("access is empty; the secret that opens Triton's APIs is needed")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.startswith("max_") and value < 1:
                raise ValueError(f"{field.name} is {value}; at least 1 is accepted")
            if field.name.endswith("_seconds") and value <= 0:
                raise ValueError(f"{field.name} is {value}; a number above 0 is accepted")
        if self.max_request_mib > 2047:
            raise ValueError(f"max_request_mib is {self.max_request_mib}; at most 2047 fit a gRPC message")
        if self.max_held_mib < max(self.max_request_mib, self.max_json_mib):
            raise ValueError(
                f"max_held_mib is {self.max_held_mib}; at least one request of {self.max_request_mib} MiB must fit"
            )

    @property
    def max_request_bytes(self) -> int:
        return self.max_request_mib * _MEBIBYTE

    @property
    def max_json_bytes(self) -> int:
        return self.max_json_mib * _MEBIBYTE

    @property
    def max_held_bytes(self) -> int:
        return self.max_held_mib * _MEBIBYTE

    def to_json(self) -> str:
        """On one line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> GateSettings:
        """Raises ValueError for what is not such an object."""
        values = json.loads(text)
        try:
            return cls(**{**values, "public_hosts": tuple(values.get("public_hosts", ()))})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"the settings cannot be read: {error}") from error
