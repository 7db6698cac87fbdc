"""The protobuf messages that go to Triton."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2

from . import media, messages
from .errors import InvalidRequest
from .media import Media

MODEL = "qwen3_vl"
DECODER = "decoder"
STAGE_1 = "video_preprocess"


@dataclass(frozen=True)
class Outgoing:
    """A request that is ready to be sent."""

    request_id: str
    message: service_pb2.ModelInferRequest
    upload_bytes: int


def ask(
    video: Media | Sequence[Media] | None,
    question: str,
    image: Media | Sequence[Media] | None,
    uri: str | Sequence[str] | None,
    sampling: Mapping[str, Any],
    video_options: Mapping[str, Any],
) -> Outgoing:
    """One user turn: videos (uploaded, then by uri), images, then the question.

    Raises:
        InvalidRequest: there is no question, or a medium cannot be read.
    """
    if not question:
        raise InvalidRequest("the question is empty")
    uris = [uri] if isinstance(uri, str) else list(uri or ())
    texts = {"text_input": [question.encode()], "video_uri": [each.encode() for each in uris]}
    return _generate(texts, media.listed(video), media.listed(image), sampling, video_options)


def chat(
    conversation: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any], video_options: Mapping[str, Any]
) -> Outgoing:
    """A conversation (`messages.convert` says its form), whose next turn is asked for.

    Raises:
        InvalidRequest: the messages have another form, or a medium cannot be read.
    """
    converted = messages.convert(conversation)
    texts = {"messages": [json.dumps(converted.messages).encode()]}
    return _generate(texts, converted.videos, converted.images, sampling, video_options)


def look(
    video: Media | Sequence[Media] | None,
    question: str,
    uri: str | Sequence[str] | None,
    video_options: Mapping[str, Any],
) -> Outgoing:
    """Asks stage 1 alone what the request would look at.

    Raises:
        InvalidRequest: a medium cannot be read.
    """
    uris = [uri] if isinstance(uri, str) else list(uri or ())
    texts = {"text_input": [question.encode()], "video_uri": [each.encode() for each in uris]}
    outgoing = _generate(texts, media.listed(video), [], {}, video_options)
    outgoing.message.model_name = STAGE_1
    outgoing.message.parameters["look"].bool_param = True
    outgoing.message.outputs.add(name="chunk_header")
    return outgoing


def stop(request_id: str) -> service_pb2.ModelInferRequest:
    """What ends a request early: the decoder is asked, with the same request id, to stop."""
    request = service_pb2.ModelInferRequest(model_name=DECODER, id=request_id)
    _add(request, "stop", "BOOL", 1, b"\x01")
    return request


def _generate(
    texts: Mapping[str, list[bytes]],
    videos: Sequence[Media],
    images: Sequence[Media],
    sampling: Mapping[str, Any],
    video_options: Mapping[str, Any],
) -> Outgoing:
    tensors = {**texts, "video": media.read("video", videos), "image": media.read("image", images)}
    media.check_upload([*tensors["video"], *tensors["image"]])
    if sampling:
        tensors["sampling_parameters"] = [_json("sampling parameters", sampling)]
    if video_options:
        tensors["video_options"] = [_json("video options", video_options)]

    request_id = uuid.uuid4().hex
    request = service_pb2.ModelInferRequest(model_name=MODEL, id=request_id)
    for name, values in tensors.items():
        if values:
            _add(request, name, "BYTES", len(values), _serialized(values))
    # Progress makes silence meaningful; the empty final response tells the end from a pause.
    request.parameters["progress"].bool_param = True
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    return Outgoing(request_id, request, sum(len(value) for values in tensors.values() for value in values))


def _add(request: service_pb2.ModelInferRequest, name: str, datatype: str, count: int, raw: bytes) -> None:
    request.inputs.add(name=name, datatype=datatype, shape=[count])
    request.raw_input_contents.append(raw)


def _serialized(values: Sequence[bytes]) -> bytes:
    """BYTES as Triton reads them: each value after its length in four bytes, little-endian."""
    return b"".join(part for value in values for part in (len(value).to_bytes(4, "little"), value))


def _json(what: str, values: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(values, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{what} {dict(values)} cannot be written as JSON: {error}") from error
