"""Messages between the stage and its workers: JSON objects, with bytes and an open file beside them if need be.

Nothing that a worker says is trusted: no pickles, and bounded lengths.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

MAX_MESSAGE_BYTES = 1 << 20
MAX_CONTENT_BYTES = 1 << 30
SLOTS = 3
"""Pictures in the memory that a worker shares with the stage: one is read while others are written."""


@dataclass(frozen=True)
class Message:
    values: dict[str, Any]
    content: bytes = b""
    file: int | None = None
    """A file descriptor; the receiver's is its own, and to be closed."""


class Exchange:
    """One end of a socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        # A descriptor of its own: each object closes what it has.
        self._connection = Connection(os.dup(end.fileno()))

    def send(self, message: Message) -> None:
        """Raises OSError if the other side is gone."""
        says = {**message.values, "_content": bool(message.content), "_file": message.file is not None}
        self._connection.send_bytes(json.dumps(says).encode())
        if message.content:
            self._connection.send_bytes(message.content)
        if message.file is not None:
            socket.send_fds(self._socket, [b"f"], [message.file])

    def has_message(self, timeout_seconds: float) -> bool:
        """True also when the other side is gone."""
        return self._connection.poll(timeout_seconds)

    def receive(self) -> Message:
        """Waits for a message; raises EOFError or OSError if the other side is gone, ValueError for nonsense."""
        values = json.loads(self._connection.recv_bytes(MAX_MESSAGE_BYTES))
        if not isinstance(values, dict):
            raise ValueError("a message that is no object")
        content = self._connection.recv_bytes(MAX_CONTENT_BYTES) if values.pop("_content", False) else b""
        file = None
        if values.pop("_file", False):
            _, files, _, _ = socket.recv_fds(self._socket, 1, 1)
            (file,) = files
        return Message(values, content, file)

    def give_up_after(self, seconds: float) -> None:
        """Bounds how long `receive` waits for the rest of a message that has begun."""
        whole = int(seconds)
        waits = struct.pack("ll", whole, int((seconds - whole) * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, waits)

    def close(self) -> None:
        self._connection.close()
        self._socket.close()
