"""One request as seen by its client: what came back so far, and how long to wait for more.

It knows no transport. `Stream` and `AsyncStream` move bytes, tell it what happened, and hand on the events it holds.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NoReturn

import grpc
from tritonclient.grpc import service_pb2

from . import errors
from .options import Timeouts
from .request import Outgoing
from .results import Answer, Event, Look, Progress, TextDelta, Timings, Usage

# How long the server may take to close the stream after the answer is complete.
_CLOSING_SECONDS = 1.0


class Exchange:
    """The state of one request. `ended` turns true when nothing more will come, be it an answer or an error."""

    def __init__(self, outgoing: Outgoing, url: str, timeouts: Timeouts) -> None:
        self.request_id = outgoing.request_id
        self.ended = False
        self._url = url
        self._timeouts = timeouts
        self._events: deque[Event] = deque([Progress("upload", upload_bytes=outgoing.upload_bytes)])
        self._texts: list[str] = []
        self._finish_reason = ""
        self._usage = Usage()
        self._started = self._heard = time.monotonic()
        self._uploaded: float | None = None
        self._responded = False
        self._first_text: float | None = None
        self._finished: float | None = None

    @property
    def answer(self) -> Answer | None:
        """The answer, once it is complete."""
        if self._finished is None:
            return None
        return Answer(
            text="".join(self._texts),
            finish_reason=self._finish_reason,
            usage=self._usage,
            timings=Timings(self._uploaded, self._first_text, self._finished),
            request_id=self.request_id,
        )

    def pop(self) -> Event | None:
        """The next event that has not been handed on."""
        return self._events.popleft() if self._events else None

    def wait_seconds(self) -> float:
        """How long to wait for the next response before `timed_out` is to be called."""
        now = time.monotonic()
        limits = [self._started + self._timeouts.total - now]
        if self._finished is not None:
            limits.append(self._heard + _CLOSING_SECONDS - now)
        elif self._uploaded is not None:
            limits.append(self._heard + self._timeouts.silence - now)
        return max(0.0, min(*limits, threading.TIMEOUT_MAX))

    def uploaded(self) -> None:
        """The request is on the wire: from now on silence counts."""
        self._heard = time.monotonic()
        self._uploaded = self._heard - self._started

    def receive(self, response: service_pb2.ModelStreamInferResponse) -> None:
        """Takes in one response.

        Raises:
            Qwen3VLError: the response is an error, or cannot be understood.
        """
        self._heard = time.monotonic()
        self._responded = True
        if response.error_message:
            if self._finished is None:
                self._fail(errors.from_message(response.error_message, self.request_id))
            self.ended = True
            return
        self._take(outputs(response.infer_response))
        if response.infer_response.parameters["triton_final_response"].bool_param:
            self.closed()

    def closed(self) -> None:
        """The server sends nothing more.

        Raises:
            InternalError: the answer is not complete.
        """
        if self._finished is None:
            self._fail(
                errors.InternalError("the server ended the request without a reason", request_id=self.request_id)
            )
        self.ended = True

    def broke(self, error: grpc.RpcError) -> None:
        """The call failed.

        Raises:
            Qwen3VLError: the answer is not complete.
        """
        if self._finished is None:
            self._fail(errors.from_rpc(error, self.request_id, self._url, answering=self._responded))
        self.ended = True

    def timed_out(self) -> None:
        """Nothing came for `wait_seconds`. The request goes on at the server unless it is stopped.

        Raises:
            Timeout: the answer is not complete.
        """
        if self._finished is not None:
            self.ended = True
            return
        if time.monotonic() - self._started >= self._timeouts.total:
            reason = f"no complete answer within {self._timeouts.total:g} s, the limit for a request"
        else:
            reason = f"nothing was heard from the server for {self._timeouts.silence:g} s"
        raise errors.Timeout(reason, request_id=self.request_id)

    def _take(self, outputs: dict[str, str]) -> None:
        if progress := outputs.get("progress"):
            self._events.append(_progress(self._parsed("progress", progress)))
        if text := outputs.get("text_output"):
            self._first_text = self._first_text or self._heard - self._started
            self._texts.append(text)
            self._events.append(TextDelta(text))
        if reason := outputs.get("finish_reason"):
            self._usage = Usage.from_json(self._parsed("usage", outputs.get("usage") or "{}"))
            self._finish_reason = reason
            self._finished = self._heard - self._started

    def _parsed(self, name: str, text: str) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            message = f"the server's {name} is {text!r}; a JSON object was expected"
            raise errors.InternalError(message, request_id=self.request_id)
        return value

    def _fail(self, error: errors.Qwen3VLError) -> NoReturn:
        self.ended = True
        raise error


def outputs(response: service_pb2.ModelInferResponse) -> dict[str, str]:
    """The response's tensors of one string each; the first four bytes of a raw string are its length."""
    return {
        output.name: raw[4:].decode()
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def read_look(responses: Sequence[service_pb2.ModelStreamInferResponse], request_id: str) -> Look:
    """What stage 1 answered, asked alone.

    Raises:
        Qwen3VLError: it answered with an error, or something that cannot be understood.
    """
    for response in responses:
        if response.error_message:
            raise errors.from_message(response.error_message, request_id)
        if header := outputs(response.infer_response).get("chunk_header"):
            try:
                return Look.from_json(json.loads(header)["look"])
            except (ValueError, KeyError, TypeError) as error:
                message = f"stage 1 answered {header[:200]!r}; a look was expected"
                raise errors.InternalError(message, request_id=request_id) from error
    raise errors.InternalError("stage 1 ended the request without a look", request_id=request_id)


def _progress(data: dict[str, Any]) -> Progress:
    return Progress(str(data.get("phase")), data.get("prompt_tokens") or 0, data.get("prefilled_tokens") or 0)
