"""Triton's side of stage 3: tensors to chunks, responses to tensors. What happens between is in `sessions/`."""

from __future__ import annotations

import json
import logging
import math
import queue
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engines.checkpoint import read_generation_config, read_model_config
from engines.create import create_engine
from engines.errors import RequestError, invalid_argument
from engines.settings import read_settings
from metrics_port import MetricsPort
from sessions.chunk import Chunk, parse_header
from sessions.credits import close_abandoned
from sessions.detokenizer import Vocabulary
from sessions.features import own_copy
from sessions.inbox import ChunkArrived, EngineSpoke, Inbox, Message, Sessions, StateAsked, StopAsked
from sessions.metrics import Metrics
from sessions.reply import Response
from sessions.session import Services
from sessions.signatures import SIGNATURE_CHARACTERS, Signatures

# Names of pb_utils.TritonError's codes by status code; pb_utils has the class only after this module was imported.
ERROR_CODES = {
    "invalid_argument": "INVALID_ARG",
    "not_found": "NOT_FOUND",
    "resource_exhausted": "UNAVAILABLE",
    "unavailable": "UNAVAILABLE",
    "cancelled": "CANCELLED",
}

logger = logging.getLogger(__name__)

# Far beyond what stage 1 sends: the digests and times of 131,072 temporal patches are 8 MiB of JSON.
MAX_HEADER_BYTES = 1 << 26
MAX_TOKENS = 1 << 24
MAX_FEATURES = 1 << 31
# Triton's ids are the clients' choice: who can guess another's could end its request.
LEAST_STOPPABLE_CHARACTERS = 16


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

    def fail(self, error: RequestError) -> None:
        code = getattr(pb_utils.TritonError, ERROR_CODES.get(error.code, "INTERNAL"))
        response = pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

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
        self._signatures = Signatures(settings.credits_directory)
        close_abandoned(settings.credits_directory)

    def execute(self, requests: list[Any]) -> None:
        """Never waits: the answers follow through the requests' response senders."""
        for request in requests:
            reply = TritonReply(request.get_response_sender())
            try:
                self._inbox.put(_message(request, reply, self._signatures))
            except RequestError as error:
                reply.fail(error)
            except Exception as error:
                # Raised, it would end the other requests too.
                logger.exception("a request was not accepted")
                message = f"{type(error).__name__} in decoder; the server's log has the details"
                reply.fail(RequestError("internal", message))

    def finalize(self) -> None:
        """Ends all sessions with an error, then the engine."""
        self._sessions.close()
        self._metrics_port.close()
        self._engine.close()


def _message(request: Any, reply: TritonReply, signatures: Signatures) -> Message:
    header = _view(request, "chunk_header", np.object_, 1)
    if header is None:
        stop = _view(request, "stop", np.bool_, 1)
        if stop is None or not stop.any():
            return StateAsked(reply)
        return StopAsked(_stoppable(request.request_id()), reply)
    token_ids = _view(request, "token_ids", np.int32, MAX_TOKENS)
    positions = _view(request, "positions", np.int32, 3 * MAX_TOKENS)
    token_ids = np.zeros(0, np.int32) if token_ids is None else token_ids
    positions = np.zeros((3, 0), np.int32) if positions is None else positions
    # Nothing is read of a chunk, and nothing copied, that may be anybody's.
    text = signatures.checked(_signed(header), token_ids, positions)
    chunk = Chunk(
        header=parse_header(text),
        request_id=request.request_id(),
        # Copies: the tensors' memory is Triton's, and goes with the request.
        token_ids=np.array(token_ids),
        positions=np.array(positions),
        features=_features(request),
        encode_seconds=_encode_seconds(request),
        arrived=time.monotonic(),
        cancelled=request.is_cancelled(),
    )
    return ChunkArrived(chunk, reply)


def _stoppable(request_id: str) -> str:
    if len(request_id) < LEAST_STOPPABLE_CHARACTERS:
        raise invalid_argument(
            f"the id {request_id!r} could be guessed; a request that is to be stopped needs an id of at least"
            f" {LEAST_STOPPABLE_CHARACTERS} characters"
        )
    return request_id


def _signed(header: NDArray[np.object_]) -> bytes:
    content = header.reshape(-1)[0] if header.size else b""
    if not isinstance(content, bytes) or not SIGNATURE_CHARACTERS <= len(content) <= MAX_HEADER_BYTES:
        raise invalid_argument(
            f"chunk_header has {len(content)} bytes; {SIGNATURE_CHARACTERS} to {MAX_HEADER_BYTES} are accepted,"
            " signed by stage 1; requests go to the model qwen3_vl"
        )
    return content


def _encode_seconds(request: Any) -> float:
    values = _view(request, "encode_seconds", np.float32, 1)
    seconds = 0.0 if values is None or not values.size else float(values.reshape(-1)[0])
    if not 0 <= seconds < math.inf:
        raise invalid_argument(f"encode_seconds is {seconds}; a number of seconds from 0 on is accepted")
    return seconds


def _view(request: Any, name: str, dtype: type[np.generic], most: int) -> NDArray[Any] | None:
    """The input where it lies, counted before it is touched; None for one that is not there."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    _check_elements(tensor, most)
    values = tensor.as_numpy()
    if values.dtype != dtype:
        raise invalid_argument(f"{name} is {values.dtype}; {np.dtype(dtype)} is accepted")
    return values


def _features(request: Any) -> torch.Tensor:
    tensor = pb_utils.get_input_tensor_by_name(request, "features")
    if tensor is None:
        return torch.zeros(0, 0, 0)
    _check_elements(tensor, MAX_FEATURES)
    features = own_copy(tensor)
    if features.dtype != torch.float32:
        raise invalid_argument(f"features is {features.dtype}; torch.float32 is accepted")
    return features


def _check_elements(tensor: Any, most: int) -> None:
    elements = math.prod(tensor.shape())
    if elements > most:
        raise invalid_argument(f"{tensor.name()} has {elements} elements; at most {most} are accepted")


def _string(name: str, value: str) -> Any:
    return pb_utils.Tensor(name, np.array([value.encode()], dtype=object))
