"""The client for ordinary code; `aio` has the one for asyncio."""

import copy
import logging
import queue
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from . import errors, request
from .aio import AsyncClient
from .connection import ENDING_SECONDS, STOP_SECONDS, Address, address, grpc_timeout
from .errors import Cancelled
from .exchange import Exchange, outputs, read_look
from .media import Media
from .options import SamplingParameters, Timeouts, Tls, VideoOptions, look_seconds, merge, with_total
from .request import Outgoing
from .results import Answer, Event, Look
from .summaries.blocking import summarize_blocking
from .summaries.summarizing import SummaryOptions
from .summaries.summary import SummaryEvent

_log = logging.getLogger("qwen3_vl_client")
_UPLOADED = object()


class Client:
    """Asks a server about videos. One channel carries any number of requests; threads may share a client.

    Args:
        url: `host:port` of the server's gRPC port; QWEN3_VL_URL or 127.0.0.1:8001 if it is not given.
        tls: encrypts the connection; `Tls()` trusts the system's certificates.
        headers: sent with every call.
        timeouts: limits of every request; `timeout=` of a request replaces the total.

    Raises:
        ValueError: the url is not `host:port`.
        OSError: a certificate or key cannot be read.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        tls: Tls | None = None,
        headers: Mapping[str, str] | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 (frozen)
    ) -> None:
        self._address = address(url, tls, headers, timeouts)
        self._connect = partial(AsyncClient, self._address.url, tls=tls, headers=headers, timeouts=timeouts)
        self._timeouts = timeouts
        self._channel = _channel(self._address)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._cache_salt = ""
        self._shared: Client | None = None

    def salted(self, cache_salt: str) -> "Client":
        """A view of this client whose requests share what the server remembers only with those of the same salt.

        It has this client's connection and timeouts. Closing it ends its own streams; it need not be closed.

        Args:
            cache_salt: at most 128 characters that others cannot guess; empty: what everybody shares.
        """
        view = copy.copy(self)
        view._streams = weakref.WeakSet()
        view._cache_salt = cache_salt
        view._shared = self
        return view

    def ask(
        self,
        video: Media | Sequence[Media] | None = None,
        question: str = "",
        *,
        image: Media | Sequence[Media] | None = None,
        uri: str | Sequence[str] | None = None,
        subtitles: Media | Sequence[Media] | None = None,
        sampling: SamplingParameters | Mapping[str, Any] | None = None,
        video_options: VideoOptions | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Answer:
        """Asks a question about videos and images, and waits for the whole answer.

        Args:
            video: files to upload, as paths or bytes; one, several or none.
            question: the text of the question.
            image: likewise.
            uri: videos that the server has, as paths below its media root.
            subtitles: files with the lines of the videos (SRT, VTT, ASS), in the order of `video`, then `uri`.
            sampling, video_options: as objects, or their fields as keywords: `max_tokens=64, fps=1`.
            timeout: seconds from start to end.

        Raises:
            Qwen3VLError: there is no answer; its class says why.
        """
        with self.stream(
            video,
            question,
            image=image,
            uri=uri,
            subtitles=subtitles,
            sampling=sampling,
            video_options=video_options,
            timeout=timeout,
            **options,
        ) as stream:
            return stream.result()

    def stream(
        self,
        video: Media | Sequence[Media] | None = None,
        question: str = "",
        *,
        image: Media | Sequence[Media] | None = None,
        uri: str | Sequence[str] | None = None,
        subtitles: Media | Sequence[Media] | None = None,
        sampling: SamplingParameters | Mapping[str, Any] | None = None,
        video_options: VideoOptions | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        whole: bool = False,
        **options: Any,
    ) -> "Stream":
        """Like `ask`, but gives the answer as it is written. The request is sent at once.

        With `whole` only progress is told before the text, which comes in one piece: cheaper where many are asked.
        """
        merged = merge(sampling, video_options, options)
        outgoing = request.ask(video, question, image, uri, subtitles, *merged, whole=whole)
        return self._send(outgoing, timeout)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        sampling: SamplingParameters | Mapping[str, Any] | None = None,
        video_options: VideoOptions | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Answer:
        """Answers a conversation of OpenAI-style messages.

        Args:
            messages: `{"role": …, "content": …}`; content is a string or a list of `{"type": "text", "text": …}`,
                `{"type": "video", "video": path or bytes}`, `{"type": "image", "image": path or bytes}`, or
                `{"type": "video", "uri": …}` for what is below the server's media root; a video part may have
                `"subtitles": path or bytes`.
            sampling, video_options, timeout, options: as of `ask`.

        Raises:
            Qwen3VLError: there is no answer; its class says why.
        """
        with self.stream_chat(
            messages, sampling=sampling, video_options=video_options, timeout=timeout, **options
        ) as stream:
            return stream.result()

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        sampling: SamplingParameters | Mapping[str, Any] | None = None,
        video_options: VideoOptions | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> "Stream":
        """Like `chat`, but gives the answer as it is written. The request is sent at once."""
        outgoing = request.chat(messages, *merge(sampling, video_options, options))
        return self._send(outgoing, timeout)

    def look(
        self,
        video: Media | Sequence[Media] | None = None,
        question: str = "",
        *,
        uri: str | Sequence[str] | None = None,
        subtitles: Media | Sequence[Media] | None = None,
        video_options: VideoOptions | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Look:
        """Tells which frames `ask` would look at, and where the videos change, without decoding. Arguments as of `ask`.

        Raises:
            Qwen3VLError: a video cannot be opened, or nobody answers; its class says why.
        """
        outgoing = request.look(video, question, uri, subtitles, merge(None, video_options, options)[1])
        return self._look(outgoing, timeout)

    def look_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        video_options: VideoOptions | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Look:
        """Tells which frames `chat` would look at; errors are those of `look`."""
        return self._look(request.look_chat(messages, merge(None, video_options, options)[1]), timeout)

    def summarize(
        self,
        video: Media | None = None,
        *,
        uri: str | None = None,
        subtitles: Media | None = None,
        options: SummaryOptions = SummaryOptions(),  # noqa: B008 (frozen)
    ) -> Iterator[SummaryEvent]:
        """Summarises a video of any length, with chapters; see `summaries.summarize`."""

        @asynccontextmanager
        async def connect() -> AsyncIterator[AsyncClient]:
            async with self._connect() as client:
                yield client.salted(self._cache_salt)

        return summarize_blocking(connect, video, uri, subtitles, options)

    def close(self) -> None:
        """Stops the requests that still run, and disconnects; a `salted` view only stops its own."""
        for stream in list(self._streams):
            stream.close()
        if self._shared is None:
            self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self, outgoing: Outgoing, timeout: float | None) -> Look:
        limit = look_seconds(with_total(self._timeouts, timeout), outgoing.upload_bytes)
        message = request.salted(outgoing, self._cache_salt).message
        try:
            call = self._stub.ModelStreamInfer(
                iter([message]), timeout=grpc_timeout(limit), metadata=self._address.metadata
            )
            return read_look(list(call), outgoing.request_id)
        except grpc.RpcError as error:
            raise errors.from_rpc(error, outgoing.request_id, self._address.url, answering=False) from error

    def _send(self, outgoing: Outgoing, timeout: float | None) -> "Stream":
        salted = request.salted(outgoing, self._cache_salt)
        stream = Stream(self._stub, self._address, salted, with_total(self._timeouts, timeout))
        self._hold(stream)
        return stream

    def _hold(self, stream: "Stream") -> None:
        self._streams.add(stream)
        if self._shared is not None:
            self._shared._hold(stream)


class Stream:
    """An answer being written: iterate over its events (`Progress`, `TextDelta`), then ask for its `result()`.

    Use it in a `with` statement. A stream that is closed, interrupted or garbage-collected before its end stops its
    request at the server.
    """

    def __init__(
        self,
        stub: service_pb2_grpc.GRPCInferenceServiceStub,
        address: Address,
        outgoing: Outgoing,
        timeouts: Timeouts,
    ) -> None:
        self._stub = stub
        self._address = address
        self._exchange = Exchange(outgoing, address.url, timeouts)
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call = stub.ModelStreamInfer(_upload(outgoing.message, self._inbox), metadata=address.metadata)
        # The reader knows the exchange but not the stream: a stream that nobody holds can be collected, its call is
        # cancelled, and the reader stops the request. Nothing is sent from within the garbage collector.
        self._reader = threading.Thread(
            target=_read, args=(stub, address, self._call, self._exchange, self._inbox), daemon=True
        )
        self._cancel: Callable[[], object] = weakref.finalize(self, self._call.cancel)
        self._reader.start()

    @property
    def request_id(self) -> str:
        """The request's name in the server's log."""
        return self._exchange.request_id

    def result(self) -> Answer:
        """The whole answer; waits for it, passing over the events that are left.

        Raises:
            Qwen3VLError: there is no answer; its class says why.
        """
        for _ in self:
            pass
        if self._exchange.answer is None:
            raise Cancelled("the stream was closed before its answer was complete", request_id=self.request_id)
        return self._exchange.answer

    def close(self) -> None:
        """Ends the stream; a request that still runs is stopped at the server. Takes a few seconds at most."""
        over = self._exchange.ended
        if not over:
            self._exchange.ended = True
            over = self._reader.is_alive() and _stop(self._stub, self._address, self.request_id)
        if over:
            # A call that is cancelled while Triton 2.51 ends it leaves some kilobytes in the server for ever.
            self._reader.join(ENDING_SECONDS)
        self._cancel()
        self._reader.join(STOP_SECONDS)

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            while (event := self._exchange.pop()) is None:
                if self._exchange.ended:
                    break
                self._wait()
        except BaseException:
            self.close()
            raise
        if event is None:
            self.close()
            raise StopIteration
        return event

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self) -> None:
        try:
            arrived = self._inbox.get(timeout=self._exchange.wait_seconds())
        except queue.Empty:
            self._exchange.timed_out()
            return
        if arrived is _UPLOADED:
            self._exchange.uploaded()
        elif arrived is None:
            self._exchange.closed()
        elif isinstance(arrived, grpc.RpcError):
            self._exchange.broke(arrived)
        else:
            self._exchange.receive(arrived)


def _channel(address: Address) -> grpc.Channel:
    if address.credentials is None:
        return grpc.insecure_channel(address.url, address.options)
    return grpc.secure_channel(address.url, address.credentials, address.options)


def _upload(
    message: service_pb2.ModelInferRequest, inbox: queue.SimpleQueue[Any]
) -> Iterator[service_pb2.ModelInferRequest]:
    yield message
    # gRPC asks for a second message when the first has left.
    inbox.put(_UPLOADED)


def _read(
    stub: service_pb2_grpc.GRPCInferenceServiceStub,
    address: Address,
    call: Any,
    exchange: Exchange,
    inbox: queue.SimpleQueue[Any],
) -> None:
    """Moves the call's responses into the inbox. If the call is cancelled before its end, stops the request."""
    try:
        for response in call:
            inbox.put(response)
        inbox.put(None)
    except grpc.RpcError as error:
        if call.cancelled() and not exchange.ended:
            _stop(stub, address, exchange.request_id)
        inbox.put(error)


def _stop(stub: service_pb2_grpc.GRPCInferenceServiceStub, address: Address, request_id: str) -> bool:
    """Whether the server knew the request, and ends it."""
    try:
        stopping = stub.ModelStreamInfer(
            iter([request.stop(request_id)]), timeout=STOP_SECONDS, metadata=address.metadata
        )
        responses = list(stopping)
    except (grpc.RpcError, ValueError) as error:  # ValueError: the channel is closed
        _log.debug("request %s could not be stopped: %s", request_id, error)
        return False
    return any(outputs(response.infer_response).get("finish_reason") for response in responses)
