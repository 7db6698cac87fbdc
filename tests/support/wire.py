"""Requests by plain tritonclient, without the project's own client: what tests ask the real server with."""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tritonclient.grpc as triton

TYPES = {"object": "BYTES", "bool": "BOOL", "uint8": "UINT8", "int32": "INT32", "float32": "FP32"}


class RequestError(Exception):
    """The request ended with this error instead of a final response."""


class SilenceError(Exception):
    """Nothing was heard from the server for as long as the test allows."""


def tensor(name: str, values: np.ndarray) -> triton.InferInput:
    made = triton.InferInput(name, list(values.shape), TYPES[str(values.dtype)])
    made.set_data_from_numpy(values)
    return made


def strings(name: str, values: Sequence[bytes | str]) -> triton.InferInput:
    encoded = [value.encode() if isinstance(value, str) else value for value in values]
    return tensor(name, np.array(encoded, dtype=object))


def question(
    text: str | None = None,
    *,
    video: Sequence[bytes] = (),
    image: Sequence[bytes] = (),
    video_uri: Sequence[str] = (),
    subtitles: Sequence[bytes] = (),
    messages: Sequence[Mapping[str, Any]] | str | None = None,
    sampling: Mapping[str, Any] | str | None = None,
    options: Mapping[str, Any] | str | None = None,
    stream: bool | None = None,
) -> list[triton.InferInput]:
    """The ensemble's inputs; JSON inputs are given as objects, or as strings where they should be malformed."""
    inputs = []
    if text is not None:
        inputs.append(strings("text_input", [text]))
    for name, values in (("video", video), ("image", image), ("video_uri", video_uri), ("subtitles", subtitles)):
        if values:
            inputs.append(strings(name, values))
    for name, value in (("messages", messages), ("sampling_parameters", sampling), ("video_options", options)):
        if value is not None:
            inputs.append(strings(name, [value if isinstance(value, str) else json.dumps(value)]))
    if stream is not None:
        inputs.append(tensor("stream", np.array([stream])))
    return inputs


class Request:
    """One request to a decoupled model, on a connection of its own."""

    def __init__(
        self,
        url: str,
        inputs: Sequence[triton.InferInput],
        *,
        model: str = "qwen3_vl",
        parameters: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        silence_seconds: float = 60,
    ) -> None:
        self.id = request_id or uuid.uuid4().hex
        self._silence_seconds = silence_seconds
        self._responses: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self._client = triton.InferenceServerClient(url)
        self._client.start_stream(lambda result, error: self._responses.put((result, error)))
        self._client.async_stream_infer(
            model, list(inputs), request_id=self.id, enable_empty_final_response=True, parameters=dict(parameters or {})
        )

    def __iter__(self) -> Iterator[triton.InferResult]:
        """The responses that carry something, until the final one; an error raises RequestError."""
        while True:
            try:
                result, error = self._responses.get(timeout=self._silence_seconds)
            except queue.Empty:
                raise SilenceError(f"no response for {self._silence_seconds} s") from None
            if error is not None:
                raise RequestError(error.message())
            response = result.get_response()
            if response.outputs:
                yield result
            if response.parameters["triton_final_response"].bool_param:
                return

    def close(self) -> None:
        """Goes away, as a client does that closes its connection: an unfinished request is cancelled."""
        self._client.stop_stream(cancel_requests=True)
        self._client.close()


@dataclass
class Answer:
    text: str = ""
    finish_reason: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    responses: int = 0
    progress: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def token_ids(self) -> list[int]:
        return self.usage["token_ids"]


def ask(url: str, inputs: Sequence[triton.InferInput], **request: Any) -> Answer:
    """Asks, and reads the answer to its end."""
    answer, started, made = Answer(), time.monotonic(), Request(url, inputs, **request)
    try:
        for result in made:
            answer.responses += 1
            if (progress := result.as_numpy("progress")) is not None:
                answer.progress.append(json.loads(progress[0]))
                continue
            answer.text += result.as_numpy("text_output")[0].decode()
            answer.finish_reason = result.as_numpy("finish_reason")[0].decode()
            if (usage := result.as_numpy("usage")) is not None:
                answer.usage = json.loads(usage[0])
    finally:
        made.close()
    answer.seconds = time.monotonic() - started
    return answer


def ask_together(url: str, requests: Sequence[Sequence[triton.InferInput]]) -> list[Answer | Exception]:
    """Asks all at the same time; each place holds the answer or the exception that it ended with."""
    answers: list[Answer | Exception] = [SilenceError("never ended")] * len(requests)

    def run(place: int) -> None:
        try:
            answers[place] = ask(url, requests[place])
        except Exception as error:
            answers[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def stop(url: str, request_id: str) -> str:
    """Asks the decoder to end that request; its finish reason: `cancelled`, or empty when there is none."""
    (result,) = _ask_decoder(url, stop=True, request_id=request_id)
    return result.as_numpy("finish_reason")[0].decode()


def engine_state(url: str) -> dict[str, int]:
    """The decoder's `blocks_total`, `blocks_free`, `sessions` and `waiting`."""
    (result,) = _ask_decoder(url, stop=False)
    return json.loads(result.as_numpy("usage")[0])


def wait_idle(url: str, seconds: float = 30) -> None:
    """Returns when no session is left and every KV block is free; fails when that does not happen in time."""
    deadline = time.monotonic() + seconds
    while True:
        state = engine_state(url)
        if state["sessions"] == state["waiting"] == 0 and state["blocks_free"] == state["blocks_total"]:
            return
        assert time.monotonic() < deadline, f"after {seconds} s the engine still holds {state}"
        time.sleep(0.1)


def _ask_decoder(url: str, *, stop: bool, request_id: str | None = None) -> list[triton.InferResult]:
    inputs = [tensor("stop", np.array([stop]))]
    request = Request(url, inputs, model="decoder", request_id=request_id, silence_seconds=10)
    try:
        return list(request)
    finally:
        request.close()
