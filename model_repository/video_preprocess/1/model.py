"""Triton's side of stage 1: tensors become inputs, chunks become responses. What the stage does is in preprocess/."""

from __future__ import annotations

import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

VERSION_FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(VERSION_FOLDER))

from preprocess.chunks.chunks import Chunk  # noqa: E402
from preprocess.errors import InvalidArgumentError, RequestError, ResourceExhaustedError  # noqa: E402
from preprocess.request.request import Inputs  # noqa: E402
from preprocess.service import Parameters, Service  # noqa: E402
from preprocess.workers.heap import return_large_memory  # noqa: E402

log = logging.getLogger(__name__)

LISTS = ("video", "image", "video_uri", "subtitles")
"""The inputs that may have more than one element."""


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        return_large_memory()
        parameters = json.loads(args["model_config"])["parameters"]
        values = {name: parameter["string_value"] for name, parameter in parameters.items()}
        settings = Parameters.from_config(values, VERSION_FOLDER)
        self._max_attachments = settings.max_attachments
        self._service = Service(settings)

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender = ResponseSender(request.get_response_sender())
            try:
                self._service.submit(read_inputs(request, self._max_attachments), sender)
            except RequestError as error:
                sender.fail(str(error))
            except Exception as error:
                # Raised, it would end the other requests too.
                log.exception("a request was not accepted")
                sender.fail(f"internal: {type(error).__name__} in video_preprocess; the server's log has the details")

    def finalize(self) -> None:
        self._service.shut_down()


class ResponseSender:
    def __init__(self, sender: Any) -> None:
        self._sender = sender

    def send(self, header: str, chunk: Chunk) -> None:
        tensors = {
            "chunk_header": np.array([header.encode()], dtype=object),
            "token_ids": chunk.token_ids,
            "positions": chunk.positions,
            "patches": chunk.patches,
            "position_indices": chunk.vision.indices,
            "position_weights": chunk.vision.weights,
            "rotary_cos": chunk.vision.rotary_cos,
            "rotary_sin": chunk.vision.rotary_sin,
        }
        outputs = [pb_utils.Tensor(name, np.ascontiguousarray(values)) for name, values in tensors.items()]
        try:
            self._sender.send(pb_utils.InferenceResponse(output_tensors=outputs))
        except pb_utils.TritonModelException as error:
            if "shared memory" not in str(error):
                raise
            raise ResourceExhaustedError("the server's shared memory (/dev/shm) is full; retry later") from error

    def fail(self, message: str) -> None:
        response = pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message))
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def close(self) -> None:
        self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def read_inputs(request: Any, max_attachments: int) -> Inputs:
    tensors = {tensor.name(): read_values(tensor, max_attachments) for tensor in request.inputs()}

    def one(name: str) -> Any:
        values = tensors.get(name)
        if values is None:
            return None
        if not len(values):
            raise InvalidArgumentError(f"{name} has no element; 1 is accepted")
        return values[0]

    def text(name: str) -> str | None:
        content = one(name)
        return None if content is None else decode_text(content, name)

    stream = one("stream")
    parameters = read_parameters(request)
    return Inputs(
        text=text("text_input"),
        messages=text("messages"),
        videos=tuple(tensors.get("video", ())),
        video_uris=tuple(decode_text(uri, "video_uri") for uri in tensors.get("video_uri", ())),
        images=tuple(tensors.get("image", ())),
        subtitles=tuple(tensors.get("subtitles", ())),
        video_options=text("video_options"),
        sampling_parameters=text("sampling_parameters"),
        stream=True if stream is None else bool(stream),
        progress=parameters.get("progress", False),
        look=parameters.get("look", False),
        cache_salt=parameters.get("cache_salt", ""),
    )


def read_values(tensor: Any, max_attachments: int) -> Any:
    """The tensor's elements, [elements]; counted before they are touched."""
    elements, accepted = math.prod(tensor.shape()), max_attachments if tensor.name() in LISTS else 1
    if elements > accepted:
        raise InvalidArgumentError(f"{tensor.name()} has {elements} elements; at most {accepted} are accepted")
    return tensor.as_numpy().reshape(-1)


def read_parameters(request: Any) -> dict[str, Any]:
    try:
        parameters = json.loads(request.parameters() or "{}")
    except ValueError as error:
        raise InvalidArgumentError(f"the request's parameters cannot be read: {error}") from None
    return dict(parameters)


def decode_text(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{name} is not UTF-8: {error}") from None
