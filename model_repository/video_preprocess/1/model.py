"""Triton's side of stage 1: tensors become inputs, chunks become responses. What the stage does is in preprocess/."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

VERSION_FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(VERSION_FOLDER))

from preprocess.chunks import Chunk  # noqa: E402
from preprocess.errors import InvalidArgumentError, RequestError  # noqa: E402
from preprocess.heap import return_large_memory  # noqa: E402
from preprocess.request import Inputs  # noqa: E402
from preprocess.service import Parameters, Service  # noqa: E402


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        return_large_memory()
        parameters = json.loads(args["model_config"])["parameters"]
        values = {name: parameter["string_value"] for name, parameter in parameters.items()}
        self._service = Service(Parameters.from_config(values, VERSION_FOLDER))

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender = ResponseSender(request.get_response_sender())
            try:
                inputs = read_inputs(request)
            except RequestError as error:
                sender.fail(str(error))
                continue
            self._service.submit(inputs, sender)

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
        self._sender.send(pb_utils.InferenceResponse(output_tensors=outputs))

    def fail(self, message: str) -> None:
        response = pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message))
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def close(self) -> None:
        self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def read_inputs(request: Any) -> Inputs:
    tensors = {tensor.name(): tensor.as_numpy().reshape(-1) for tensor in request.inputs()}

    def one(name: str) -> Any:
        values = tensors.get(name)
        if values is None:
            return None
        if len(values) != 1:
            raise InvalidArgumentError(f"{name} has {len(values)} elements; 1 is accepted")
        return values[0]

    def text(name: str) -> str | None:
        content = one(name)
        return None if content is None else decode_text(content, name)

    stream = one("stream")
    parameters = json.loads(request.parameters() or "{}")
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
        progress=parameters.get("progress") is True,
        look=parameters.get("look") is True,
    )


def decode_text(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{name} is not UTF-8: {error}") from None
