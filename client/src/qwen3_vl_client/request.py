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
    subtitles: Media | Sequence[Media] | None,
    sampling: Mapping[str, Any],
    video_options: Mapping[str, Any],
    *,
    whole: bool = False,
) -> Outgoing:
    """One user turn: videos (uploaded, then by uri), images, then the question; subtitles in the videos' order.

    `whole`: the answer comes in one piece.

    Raises:
        InvalidRequest: there is no question, or a medium cannot be read.
    """
    if not question:
        raise InvalidRequest("the question is empty")
    texts = {"text_input": [question.encode()]}
    attached = _Attached(media.listed(video), _listed(uri), media.listed(image), media.listed(subtitles))
    outgoing = _generate(texts, attached, sampling, video_options)
    if whole:
        _add(outgoing.message, "stream", "BOOL", 1, b"\x00")
    return outgoing


def chat(
    conversation: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any], video_options: Mapping[str, Any]
) -> Outgoing:
    """A conversation (`messages.convert` says its form), whose next turn is asked for.

    Raises:
        InvalidRequest: the messages have another form, or a medium cannot be read.
    """
    converted = messages.convert(conversation)
    texts = {"messages": [json.dumps(converted.messages).encode()]}
    attached = _Attached(converted.videos, converted.uris, converted.images, converted.subtitles)
    return _generate(texts, attached, sampling, video_options)


def look(
    video: Media | Sequence[Media] | None,
    question: str,
    uri: str | Sequence[str] | None,
    subtitles: Media | Sequence[Media] | None,
    video_options: Mapping[str, Any],
) -> Outgoing:
    """Asks stage 1 alone what the request would look at.

    Raises:
        InvalidRequest: a medium cannot be read.
    """
    texts = {"text_input": [question.encode()]}
    attached = _Attached(media.listed(video), _listed(uri), [], media.listed(subtitles))
    return _to_stage_1(_generate(texts, attached, {}, video_options))


def look_chat(conversation: Sequence[Mapping[str, Any]], video_options: Mapping[str, Any]) -> Outgoing:
    """Asks stage 1 alone what a conversation's next turn would look at; errors are those of `chat`."""
    return _to_stage_1(chat(conversation, {}, video_options))


def salted(outgoing: Outgoing, cache_salt: str) -> Outgoing:
    """The same request for the owner of a cache; an empty salt is the common one."""
    if cache_salt:
        outgoing.message.parameters["cache_salt"].string_param = cache_salt
    return outgoing


def stop(request_id: str) -> service_pb2.ModelInferRequest:
    """What ends a request early: the decoder is asked, with the same request id, to stop."""
    request = service_pb2.ModelInferRequest(model_name=DECODER, id=request_id)
    _add(request, "stop", "BOOL", 1, b"\x01")
    return request


@dataclass(frozen=True)
class _Attached:
    """What goes beside the texts; `subtitles` are in the order of videos, then uris, None for one without."""

    videos: Sequence[Media]
    uris: Sequence[str]
    images: Sequence[Media]
    subtitles: Sequence[Media | None]


def _listed(uri: str | Sequence[str] | None) -> list[str]:
    return [uri] if isinstance(uri, str) else list(uri or ())


def _generate(
    texts: Mapping[str, list[bytes]],
    attached: _Attached,
    sampling: Mapping[str, Any],
    video_options: Mapping[str, Any],
) -> Outgoing:
    tensors = {
        **texts,
        "video": media.read("video", attached.videos),
        "video_uri": [uri.encode() for uri in attached.uris],
        "image": media.read("image", attached.images),
        "subtitles": _subtitles(attached.subtitles),
    }
    media.check_upload([*tensors["video"], *tensors["image"], *tensors["subtitles"]])
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


def _to_stage_1(outgoing: Outgoing) -> Outgoing:
    outgoing.message.model_name = STAGE_1
    outgoing.message.parameters["look"].bool_param = True
    outgoing.message.outputs.add(name="chunk_header")
    return outgoing


def _subtitles(files: Sequence[Media | None]) -> list[bytes]:
    given = [file for file in files if file is not None]
    contents = iter(media.read("subtitles", given))
    return [b"" if file is None else next(contents) for file in files] if given else []


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
