"""Takes a ModelInferRequest apart without copying its tensors, and without being filled by what it claims.

A few million empty inputs are two bytes each on the wire and a hundred in memory. So the fields are counted on the wire
(protobuf.dev/programming-guides/encoding), and only what is small is given to protobuf.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

# 64 inputs with their contents, 64 outputs, 64 parameters, and the names.
MAX_FIELDS = 260
# A request without its raw contents; typed contents are in it. A megabyte of them may be half a million values.
MAX_HEAD_BYTES = 128 * 2**10

_RAW_INPUT_CONTENTS = 7
_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5


class RefusedError(Exception):
    """A request that is not let through. The message says why, and what is accepted; `request_id` is empty where the
    request could not be read."""

    request_id = ""


@dataclass(frozen=True)
class Envelope:
    """A request: `head` has all of it but the raw contents, which are views of the message."""

    head: service_pb2.ModelInferRequest
    raw_contents: list[memoryview]


def open_envelope(message: bytes) -> Envelope:
    """Raises RefusedError for what is no ModelInferRequest, or one with too many fields."""
    view, at, fields = memoryview(message), 0, 0
    head, head_bytes, raw_contents = [], 0, []
    while at < len(message):
        fields += 1
        if fields > MAX_FIELDS:
            raise RefusedError(f"the request has more than {MAX_FIELDS} inputs, outputs, parameters and contents")
        begin = at
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _LENGTH:
            length, at = _varint(message, at)
            content, at = at, at + length
        elif kind == _VARINT:
            _, at = _varint(message, at)
        else:
            at += {_FIXED_32: 4, _FIXED_64: 8}.get(kind, len(message))
        if at > len(message):
            raise RefusedError("the message is not a ModelInferRequest: it ends within a field")
        if tag == _RAW_INPUT_CONTENTS << 3 | _LENGTH:
            raw_contents.append(view[content:at])
            continue
        head.append(view[begin:at])
        head_bytes += at - begin
        if head_bytes > MAX_HEAD_BYTES:
            raise RefusedError(
                f"the request has more than {MAX_HEAD_BYTES:,} bytes beside raw_input_contents: send tensors there"
            )
    try:
        return Envelope(service_pb2.ModelInferRequest.FromString(b"".join(head)), raw_contents)
    except DecodeError as error:
        raise RefusedError(f"the message is not a ModelInferRequest: {error}") from error


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number of at most 64 bits that begins there, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise RefusedError("the message is not a ModelInferRequest: a number in it has no end")
