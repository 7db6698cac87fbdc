"""Asks a Triton server over HTTP, for the supervisor: its models' states, to load them again, and for answers."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TypeVar

from build.serve.server.triton import ENSEMBLE

Answer = TypeVar("Answer")

# How Triton's Python backend says that a stage's process is dead or stopped.
_DEAD_STUB = "is not healthy"

# The cheapest request that makes a stage's own process answer. Stage 1 refuses the empty one; that is an answer.
PROBES: Mapping[str, Mapping[str, object]] = {"video_preprocess": {}, "decoder": {"stop": False}}

_QUESTION = {"text_input": "Hello", "sampling_parameters": json.dumps({"max_tokens": 1})}


class ApiError(RuntimeError):
    """The server did not answer, or answered with an error. The message says which."""


class Api:
    """A client of one server's HTTP endpoint, e.g. `http://127.0.0.1:8000`; `headers` open what is restricted."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._headers = dict(headers or {})

    def is_live(self, timeout_seconds: float) -> bool:
        """Whether the server itself answers, whatever its models do."""
        return self._succeeds("/v2/health/live", timeout_seconds)

    def is_loaded(self, timeout_seconds: float) -> bool:
        """Whether every model was loaded. It goes on saying so when a stage's process has died."""
        return self._succeeds("/v2/health/ready", timeout_seconds)

    def states(self, timeout_seconds: float) -> dict[str, str]:
        """Each model's state as the repository tells it: `READY`, `LOADING`, `UNLOADING`, `UNAVAILABLE`."""
        models = json.loads(self._send("POST", "/v2/repository/index", {}, timeout_seconds))
        return {model["name"]: model.get("state", "") for model in models}

    def load(self, model: str, timeout_seconds: float) -> None:
        """Loads a model, and with it the ensemble that waits for it."""
        self._send("POST", f"/v2/repository/models/{model}/load", {}, timeout_seconds)

    def unload(self, model: str, timeout_seconds: float) -> None:
        """Unloads a model. Requests that it holds keep its old version in memory; a new one can be loaded."""
        self._send("POST", f"/v2/repository/models/{model}/unload", {}, timeout_seconds)

    def stage_answers(self, stage: str, timeout_seconds: float) -> bool:
        """Whether the process of a stage in `PROBES` answers; ApiError when nothing is heard for `timeout_seconds`."""
        request = {"id": uuid.uuid4().hex, **PROBES[stage]}
        try:
            answer = self._send("POST", f"/v2/models/{stage}/generate_stream", request, timeout_seconds)
        except _RefusedError as error:
            answer = str(error)
        return _DEAD_STUB not in answer

    def ask(self, timeout_seconds: float) -> None:
        """Asks the ensemble for one token; ApiError unless it answers, or when it is silent for `timeout_seconds`."""
        answer = self._send("POST", f"/v2/models/{ENSEMBLE}/generate_stream", _QUESTION, timeout_seconds)
        events = [json.loads(line.removeprefix("data: ")) for line in answer.splitlines() if line]
        for event in events:
            if "error" in event:
                raise ApiError(event["error"])
        if not events or not events[-1]["finish_reason"]:
            raise ApiError(f"the answer to a text of one token has no end: {answer!r}")

    def _succeeds(self, path: str, timeout_seconds: float) -> bool:
        try:
            self._send("GET", path, None, timeout_seconds)
        except ApiError:
            return False
        return True

    def _send(self, method: str, path: str, body: Mapping[str, object] | None, timeout_seconds: float) -> str:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout_seconds) as response:
                return response.read().decode()
        except urllib.error.HTTPError as error:
            raise _RefusedError(f"{path}: {error.read().decode() or error}") from error
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{path}: {error or type(error).__name__}") from error


class _RefusedError(ApiError):
    """The server answered, with an error."""


def in_background(function: Callable[[], Answer]) -> Future[Answer]:
    """Calls a function of an `Api` in a thread, which ends with the server's connection."""
    future: Future[Answer] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except ApiError as error:
            future.set_exception(error)

    try:
        threading.Thread(target=call, daemon=True).start()
    except RuntimeError as error:
        # The machine has no thread left, as happens when no memory is left.
        future.set_exception(ApiError(str(error)))
    return future
