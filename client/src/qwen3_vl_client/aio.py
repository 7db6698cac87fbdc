"""The client for asyncio, with the methods of `client.Client`."""

import asyncio
import contextlib
import copy
import logging
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import service_pb2_grpc

from . import errors, request
from .connection import ENDING_SECONDS, STOP_SECONDS, Address, address, grpc_timeout
from .errors import Cancelled
from .exchange import Exchange, outputs, read_look
from .media import Media
from .options import SamplingParameters, Timeouts, Tls, VideoOptions, look_seconds, merge, with_total
from .request import Outgoing
from .results import Answer, Event, Look
from .summaries.summarizing import SummaryOptions, summarize
from .summaries.summary import SummaryEvent

Result = TypeVar("Result")

_log = logging.getLogger("qwen3_vl_client")


class AsyncClient:
    """Asks a server about videos. One channel carries any number of requests of one event loop.

    Arguments and errors are those of `Client`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        tls: Tls | None = None,
        headers: Mapping[str, str] | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 (frozen)
    ) -> None:
        self._timeouts = timeouts
        self._connection = _Connection(address(url, tls, headers, timeouts))
        self._streams: weakref.WeakSet[AsyncStream] = weakref.WeakSet()
        self._cache_salt = ""
        self._shared: AsyncClient | None = None

    def salted(self, cache_salt: str) -> "AsyncClient":
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

    async def ask(
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
        """Asks a question about videos and images, and waits for the whole answer; see `Client.ask`."""
        async with self.stream(
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
            return await stream.result()

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
    ) -> "AsyncStream":
        """Like `ask`, but gives the answer as it is written; see `Client.stream`. The request is sent when iteration
        begins."""
        merged = merge(sampling, video_options, options)
        return self._stream(lambda: request.ask(video, question, image, uri, subtitles, *merged, whole=whole), timeout)

    async def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        sampling: SamplingParameters | Mapping[str, Any] | None = None,
        video_options: VideoOptions | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Answer:
        """Answers a conversation of OpenAI-style messages; see `Client.chat`."""
        async with self.stream_chat(
            messages, sampling=sampling, video_options=video_options, timeout=timeout, **options
        ) as stream:
            return await stream.result()

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        sampling: SamplingParameters | Mapping[str, Any] | None = None,
        video_options: VideoOptions | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> "AsyncStream":
        """Like `chat`, but gives the answer as it is written. The request is sent when iteration begins."""
        merged = merge(sampling, video_options, options)
        return self._stream(lambda: request.chat(messages, *merged), timeout)

    async def look(
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
        """Tells which frames `ask` would look at, and where the videos change; see `Client.look`."""
        merged = merge(None, video_options, options)[1]
        return await self._look(lambda: request.look(video, question, uri, subtitles, merged), timeout)

    async def look_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        video_options: VideoOptions | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Look:
        """Tells which frames `chat` would look at; see `Client.look_chat`."""
        merged = merge(None, video_options, options)[1]
        return await self._look(lambda: request.look_chat(messages, merged), timeout)

    def summarize(
        self,
        video: Media | None = None,
        *,
        uri: str | None = None,
        subtitles: Media | None = None,
        options: SummaryOptions = SummaryOptions(),  # noqa: B008 (frozen)
    ) -> AsyncGenerator[SummaryEvent, None]:
        """Summarises a video of any length, with chapters; see `summaries.summarize`."""
        return summarize(self, video, uri=uri, subtitles=subtitles, options=options)

    async def close(self) -> None:
        """Stops the requests that still run, and disconnects; a `salted` view only stops its own."""
        await asyncio.gather(*(stream.close() for stream in list(self._streams)))
        if self._shared is None:
            await self._connection.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _stream(self, prepare: Callable[[], Outgoing], timeout: float | None) -> "AsyncStream":
        salt = self._cache_salt
        limits = with_total(self._timeouts, timeout)
        stream = AsyncStream(self._connection, lambda: request.salted(prepare(), salt), limits)
        self._hold(stream)
        return stream

    async def _look(self, prepare: Callable[[], Outgoing], timeout: float | None) -> Look:
        outgoing = request.salted(await asyncio.to_thread(prepare), self._cache_salt)
        return await self._connection.look(outgoing, with_total(self._timeouts, timeout))

    def _hold(self, stream: "AsyncStream") -> None:
        self._streams.add(stream)
        if self._shared is not None:
            self._shared._hold(stream)


class AsyncStream:
    """An answer being written: iterate over its events (`Progress`, `TextDelta`), then ask for its `result()`.

    Use it in an `async with` statement. A stream that is closed, whose task is cancelled, or that is garbage-collected
    before its end stops its request at the server.
    """

    def __init__(self, connection: "_Connection", prepare: Callable[[], Outgoing], timeouts: Timeouts) -> None:
        self._connection = connection
        self._prepare = prepare
        self._timeouts = timeouts
        self._running: _Running | None = None
        self._ending: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def request_id(self) -> str | None:
        """The request's name in the server's log; None until it is sent."""
        return None if self._running is None else self._running.exchange.request_id

    async def result(self) -> Answer:
        """The whole answer; waits for it, passing over the events that are left.

        Raises:
            Qwen3VLError: there is no answer; its class says why.
        """
        async for _ in self:
            pass
        answer = None if self._running is None else self._running.exchange.answer
        if answer is None:
            raise self._closed_early()
        return answer

    async def close(self) -> None:
        """Ends the stream; a request that still runs is stopped at the server. Takes `STOP_SECONDS` at most."""
        self._closed = True
        if self._running is not None:
            # Whoever closes a second time waits for the first: it gives the request the time to end.
            self._ending = self._ending or self._connection.abandon(self._running)
            # The stopping goes on if this task is cancelled meanwhile.
            await asyncio.shield(self._ending)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = None
        try:
            if self._running is None and not self._closed:
                await self._start()
            if self._running is not None:
                event = await self._running.next_event()
        except asyncio.CancelledError:
            # A call that was cancelled by close() in another task looks like this task's own cancellation.
            if self._closed:
                raise self._closed_early() from None
            await self.close()
            raise
        except BaseException:
            await self.close()
            raise
        if event is None:
            await self.close()
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> "AsyncStream":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _start(self) -> None:
        outgoing = await asyncio.to_thread(self._prepare)
        self._running = self._connection.start(outgoing, self._timeouts)
        weakref.finalize(self, self._connection.abandon_later, self._running)

    def _closed_early(self) -> Cancelled:
        return Cancelled("the stream was closed before its answer was complete", request_id=self.request_id)


async def within(seconds: float, work: Coroutine[Any, Any, Result]) -> Result:
    """`asyncio.wait_for`; but that one, before Python 3.12, loses a cancellation that comes together with the result.

    Raises:
        asyncio.TimeoutError: the work took longer, and was cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait((task,), timeout=seconds)
        if not done:
            raise asyncio.TimeoutError
        return task.result()
    finally:
        task.cancel()


class _Running:
    """A call and what came back from it. It outlives its stream until the request is stopped."""

    def __init__(self, call: Any, outgoing: Outgoing, exchange: Exchange) -> None:
        self.call = call
        self.exchange = exchange
        self._outgoing: Outgoing | None = outgoing

    async def next_event(self) -> Event | None:
        """The next event; None at the end."""
        while (event := self.exchange.pop()) is None and not self.exchange.ended:
            try:
                if self._outgoing is None:
                    arrived = await within(self.exchange.wait_seconds(), self.call.read())
                else:
                    await within(self.exchange.wait_seconds(), self._upload(self._outgoing))
                    continue
            except asyncio.TimeoutError:
                self.exchange.timed_out()
                continue
            except grpc.RpcError as error:
                self.exchange.broke(error)
                continue
            # Outside of the `try`: the server's own word of a time that ran out is a TimeoutError too.
            if arrived is grpc.aio.EOF:
                self.exchange.closed()
            else:
                self.exchange.receive(arrived)
        return event

    async def drain(self) -> None:
        """Reads to the end of the call, unless another task is reading."""
        with contextlib.suppress(grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError, asyncio.CancelledError):
            while await self.call.read() is not grpc.aio.EOF:
                pass

    async def _upload(self, outgoing: Outgoing) -> None:
        with contextlib.suppress(asyncio.InvalidStateError):  # the call is over already; reading it says why
            await self.call.write(outgoing.message)
            await self.call.done_writing()
        self._outgoing = None
        self.exchange.uploaded()


class _Connection:
    """The channel, made in the event loop that first uses it, and the stopping of requests that nobody waits for."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    def start(self, outgoing: Outgoing, timeouts: Timeouts) -> _Running:
        """Begins a call."""
        self._connect()
        call = self._stub.ModelStreamInfer(metadata=self._address.metadata)
        return _Running(call, outgoing, Exchange(outgoing, self._address.url, timeouts))

    async def look(self, outgoing: Outgoing, timeouts: Timeouts) -> Look:
        self._connect()
        limit = grpc_timeout(look_seconds(timeouts, outgoing.upload_bytes))
        call = self._stub.ModelStreamInfer(iter([outgoing.message]), timeout=limit, metadata=self._address.metadata)
        try:
            return read_look([response async for response in call], outgoing.request_id)
        except grpc.RpcError as error:
            raise errors.from_rpc(error, outgoing.request_id, self._address.url, answering=False) from error

    def abandon(self, running: _Running) -> asyncio.Task[None]:
        """Ends a call; a request that has not ended is stopped at the server."""
        task = asyncio.get_running_loop().create_task(self._end(running))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
        return task

    def abandon_later(self, running: _Running) -> None:
        """`abandon`, from any thread and from within the garbage collector."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.abandon, running)

    async def close(self) -> None:
        await asyncio.gather(*self._stopping)
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    def _connect(self) -> None:
        if self._channel is None:
            self._loop = asyncio.get_running_loop()
            self._channel = _channel(self._address)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def _end(self, running: _Running) -> None:
        over = running.exchange.ended
        if not over:
            running.exchange.ended = True
            over = await self._stop(running.exchange.request_id)
        if over:
            # A call that is cancelled while Triton 2.51 ends it leaves some kilobytes in the server for ever.
            with contextlib.suppress(asyncio.TimeoutError):
                await within(ENDING_SECONDS, running.drain())
        running.call.cancel()

    async def _stop(self, request_id: str) -> bool:
        """Whether the server knew the request, and ends it."""
        try:
            stopping = self._stub.ModelStreamInfer(
                iter([request.stop(request_id)]), timeout=STOP_SECONDS, metadata=self._address.metadata
            )
            responses = [response async for response in stopping]
        except (grpc.RpcError, grpc.aio.UsageError) as error:
            _log.debug("request %s could not be stopped: %s", request_id, error)
            return False
        return any(outputs(response.infer_response).get("finish_reason") for response in responses)


def _channel(address: Address) -> grpc.aio.Channel:
    if address.credentials is None:
        return grpc.aio.insecure_channel(address.url, address.options)
    return grpc.aio.secure_channel(address.url, address.credentials, address.options)
