"""Triton's side of stage 3: tensors to chunks, responses to tensors. What happens between is in `engine/`."""

from __future__ import annotations

import json
import logging
import queue
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb_utils
from engine.checkpoint import read_generation_config, read_model_config
from engine.chunk import Chunk, parse_header
from engine.credits import close_abandoned
from engine.detokenizer import Vocabulary
from engine.engines import create_engine
from engine.errors import RequestError
from engine.features import own_copy
from engine.metrics import Metrics
from engine.reply import Response
from engine.session import Services
from engine.sessions import ChunkArrived, EngineSpoke, Inbox, Message, Sessions, StateAsked, StopAsked
from engine.settings import read_settings
from metrics_port import MetricsPort
from tokenizers import Tokenizer

# Names of pb_utils.TritonError's codes by status code; pb_utils has the class only after this module was imported.
ERROR_CODES = {
    "invalid_argument": "INVALID_ARG",
    "not_found": "NOT_FOUND",
    "resource_exhausted": "UNAVAILABLE",
    "unavailable": "UNAVAILABLE",
    "cancelled": "CANCELLED",
}


class TritonReply:
    """One request's response sender."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender

    def send(self, response: Response, *, final: bool = False) -> None:
        outputs = [_string("text_output", response.text), _string("finish_reason", response.finish_reason)]
        outputs += [_string("usage", response.usage)] if response.usage else []
        outputs += [_string("progress", response.progress)] if response.progress else []
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        self._sender.send(pb_utils.InferenceResponse(outputs), flags=flags)

    def fail(self, message: str) -> None:
        code = ERROR_CODES.get(message.partition(":")[0], "INTERNAL")
        error = pb_utils.TritonError(message, getattr(pb_utils.TritonError, code))
        self._sender.send(pb_utils.InferenceResponse(error=error), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def close(self) -> None:
        self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


class TritonPythonModel:
    """Hands every request over at once; sessions answer from their own thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the checkpoint and starts the engine. Raises ValueError for a setting that cannot be used."""
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s decoder: %(message)s")
        parameters = json.loads(args["model_config"])["parameters"]
        settings = read_settings(
            {name: parameter["string_value"] for name, parameter in parameters.items()},
            Path(args["model_repository"]) / args["model_version"],
        )
        self._inbox: Inbox = queue.SimpleQueue()
        self._engine = create_engine(settings, lambda session, event: self._inbox.put(EngineSpoke(session, event)))
        services = Services(
            engine=self._engine,
            config=read_model_config(settings.checkpoint),
            vocabulary=Vocabulary(Tokenizer.from_file(str(settings.checkpoint / "tokenizer.json"))),
            defaults=read_generation_config(settings.checkpoint, settings.default_max_tokens).defaults,
            settings=settings,
            metrics=Metrics(),
        )
        self._sessions = Sessions(services, self._inbox)
        self._metrics_port = MetricsPort(services.metrics, self._engine)
        close_abandoned(settings.credits_directory)

    def execute(self, requests: list[Any]) -> None:
        """Never waits: the answers follow through the requests' response senders."""
        for request in requests:
            reply = TritonReply(request.get_response_sender())
            try:
                self._inbox.put(_message(request, reply))
            except RequestError as error:
                reply.fail(str(error))

    def finalize(self) -> None:
        """Ends all sessions with an error, then the engine."""
        self._sessions.close()
        self._metrics_port.close()
        self._engine.close()


def _message(request: Any, reply: TritonReply) -> Message:
    header = _text(request, "chunk_header")
    if header is None:
        stop = _array(request, "stop", np.zeros(1, bool))
        return StopAsked(request.request_id(), reply) if stop.any() else StateAsked(reply)
    encode_seconds = _array(request, "encode_seconds", np.zeros(1, np.float32))
    chunk = Chunk(
        header=parse_header(header),
        request_id=request.request_id(),
        token_ids=_array(request, "token_ids", np.zeros(0, np.int32)),
        positions=_array(request, "positions", np.zeros((3, 0), np.int32)),
        features=_features(request),
        encode_seconds=float(encode_seconds[0]),
        arrived=time.monotonic(),
        cancelled=request.is_cancelled(),
    )
    return ChunkArrived(chunk, reply)


def _array(request: Any, name: str, default: np.ndarray) -> np.ndarray:
    """A copy: the tensor's memory is Triton's, and goes with the request."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return default if tensor is None else np.array(tensor.as_numpy())


def _features(request: Any) -> torch.Tensor:
    tensor = pb_utils.get_input_tensor_by_name(request, "features")
    return torch.zeros(0, 0, 0) if tensor is None else own_copy(tensor)


def _text(request: Any, name: str) -> str | None:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else bytes(tensor.as_numpy()[0]).decode("utf-8", errors="replace")


def _string(name: str, value: str) -> Any:
    return pb_utils.Tensor(name, np.array([value.encode()], dtype=object))
