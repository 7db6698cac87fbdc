"""The gRPC door: forwards messages as the bytes that they are, after a look at those that ask a model."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from build.serve.gate import methods, rules
from build.serve.gate.budget import Budget, FullError
from build.serve.gate.calls import Call, Calls
from build.serve.gate.envelope import RefusedError
from build.serve.gate.losses import Losses
from build.serve.gate.settings import GateSettings
from build.serve.gate.stoppable import STOPPABLE_CHARACTERS
from build.serve.server.triton import ENSEMBLE
from qwen3_vl_client import request as requests

_ACCESS = "triton-grpc-protocol-qwen3-vl-access"
# Triton 2.51 has crashed, about once in a thousand, on calls that were cancelled while it answered them. So a request
# whose client goes away is stopped, and may take so long to end by itself before its call is cancelled.
_ENDING_SECONDS = 1.0
# Set by Triton in the last response of a request, if its client has asked for it.
_FINAL = "triton_final_response"
# A question about the server or a model has names in it, and nothing else.
_TELLING_BYTES = 4096
_METHOD_CHARACTERS = 256
# Of one call.
_MAX_REFUSALS = 16

# So many connections to Triton, so that large uploads do not hold up everybody.
_CHANNELS = 4
_UNLIMITED = 2**31 - 1
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", _UNLIMITED),
    ("grpc.max_receive_message_length", _UNLIMITED),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    # A server that was restarted is found soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_HEAD_BYTES = 16 * 2**10
# A connection without a call; clients connect again when they ask again.
_CONNECTION_IDLE_SECONDS = 10.0

Context = Any
Ended = tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]


def _server_options(bounds: GateSettings) -> list[tuple[str, int]]:
    idle_milliseconds = int(min(bounds.idle_seconds, _CONNECTION_IDLE_SECONDS) * 1000)
    return [
        # Another process of this user cannot listen beside the gate.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", bounds.max_request_bytes),
        ("grpc.max_send_message_length", _UNLIMITED),
        # Identity alone: a message that is small when compressed may be as large as memory.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.max_concurrent_streams", bounds.max_connection_calls),
        ("grpc.max_allowed_incoming_connections", bounds.max_connections),
        ("grpc.max_metadata_size", _HEAD_BYTES),
        ("grpc.absolute_max_metadata_size", _HEAD_BYTES),
        # A header that is kept and referred to by one byte is unpacked each time.
        ("grpc.http2.hpack_table_size.decoder", 0),
        # Until a client has agreed to that, it may have a table.
        ("grpc.http2.settings_timeout", 2000),
        # Connections that say nothing, or whose client is no more.
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_connection_idle_ms", idle_milliseconds),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients may ask as often whether the gate is there.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
    ]


class GrpcDoor:
    """Listens on one port while it runs."""

    def __init__(self, settings: GateSettings, budget: Budget, calls: Calls, losses: Losses) -> None:
        self._settings = settings
        self._budget = budget
        self._calls = calls
        self._losses = losses
        self._farewells: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises RuntimeError when the port cannot be used."""
        bounds = self._settings
        channels = [grpc.aio.insecure_channel(bounds.triton_grpc, _CHANNEL_OPTIONS) for _ in range(_CHANNELS)]
        self._channels = itertools.cycle(channels)
        self._server = grpc.aio.server(
            handlers=[_Handlers(self)],
            options=_server_options(bounds),
            # The gate refuses with a reason first.
            maximum_concurrent_rpcs=2 * bounds.max_calls,
        )
        host = f"[{bounds.host}]" if ":" in bounds.host else bounds.host
        self._server.add_insecure_port(f"{host}:{bounds.grpc_port}")
        await self._server.start()

    async def close(self) -> None:
        """Ends what goes on after the settings' time."""
        await self._server.stop(self._settings.drain_seconds)
        await asyncio.gather(*self._farewells, return_exceptions=True)

    async def stop(self, request_id: str) -> None:
        """Asks stage 3 to end a request, if its id is one that nobody guesses."""
        if len(request_id) < STOPPABLE_CHARACTERS:
            return
        call = next(self._channels).stream_stream(methods.STREAM)(
            iter([requests.stop(request_id).SerializeToString()]), metadata=self._metadata(), timeout=_ENDING_SECONDS
        )
        with contextlib.suppress(grpc.RpcError):
            async for _ in call:
                pass

    async def closed(self, method: str, context: Context) -> None:
        if method == methods.UNARY_INFER:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, methods.IN_PIECES)
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{method[:_METHOD_CHARACTERS]} {methods.CLOSED}")

    async def tell(self, method: str, context: Context, call: Call) -> None:
        request = await context.read()
        if request is grpc.aio.EOF or len(request) > _TELLING_BYTES:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"one message of at most {_TELLING_BYTES:,} bytes is accepted"
            )
        try:
            if not methods.may_tell(method, request):
                others = f"{method} of other models than {', '.join(methods.MODELS)}"
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{others} {methods.CLOSED}")
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the message is none of {method}: {error}")
        call.waiting.ask("")
        answer = next(self._channels).unary_unary(method)(
            request, metadata=self._metadata(context), timeout=context.time_remaining()
        )
        try:
            await self._write(context, call, await answer)
        except grpc.aio.AioRpcError as error:
            await context.abort(*_ended(error))

    async def stream(self, context: Context, call: Call) -> None:
        remaining = context.time_remaining()
        upstream = next(self._channels).stream_stream(methods.STREAM)(
            metadata=self._metadata(context),
            # The client's side tells the gate first of a request that is too late.
            timeout=None if remaining is None else remaining + 2 * _ENDING_SECONDS,
        )
        # Tasks of their own: a call is cancelled when a task is that reads from it or writes to it.
        answering = asyncio.create_task(self._answer(context, upstream, call))
        asking = asyncio.create_task(self._ask(context, upstream, call))
        try:
            code, details, trailing = await asyncio.shield(answering)
        except asyncio.CancelledError:
            call.is_left = True
            farewell = asyncio.create_task(self._farewell(upstream, answering, asking, call))
            self._farewells.add(farewell)
            farewell.add_done_callback(self._farewells.discard)
            raise
        asking.cancel()
        if code is not grpc.StatusCode.OK:
            await context.abort(code, details, trailing)
        context.set_trailing_metadata(trailing)

    async def _ask(self, context: Context, upstream: Any, call: Call) -> None:
        """Hands on what the client asks, as fast as Triton takes it; refuses what is not let through."""
        refusals = 0
        while (message := await context.read()) is not grpc.aio.EOF:
            call.heard = time.monotonic()
            try:
                with self._budget.holding(len(message)):
                    await self._ask_one(message, upstream, call)
            except RefusedError as error:
                refusals += 1
                if refusals > _MAX_REFUSALS:
                    # To look at a message costs more than to send it.
                    call.end(
                        grpc.StatusCode.INVALID_ARGUMENT, f"{refusals} requests were refused, the last one: {error}"
                    )
                    return
                await self._refuse(context, call, f"invalid_argument: {error}", error.request_id)
            except FullError as error:
                await self._refuse(context, call, f"resource_exhausted: {error}", "")
            except (grpc.RpcError, asyncio.InvalidStateError):
                # Triton has ended the call; the answering side knows why.
                return
            # Not kept until the next one has come.
            del message
        # gRPC has no public name for what it raises when Triton has gone.
        with contextlib.suppress(Exception):
            await upstream.done_writing()

    async def _ask_one(self, message: bytes, upstream: Any, call: Call) -> None:
        request = rules.check(message)
        call.waiting.ask(request.model_name)
        if request.model_name == ENSEMBLE:
            call.ids.append(request.id)
        await upstream.write(message)

    async def _answer(self, context: Context, upstream: Any, call: Call) -> Ended:
        """Hands on what Triton answers, as fast as the client reads it."""
        try:
            while (answer := await upstream.read()) is not grpc.aio.EOF:
                _count(answer, call)
                await self._write(context, call, answer)
        except grpc.aio.AioRpcError as error:
            return _ended(error)
        return await upstream.code(), await upstream.details(), await upstream.trailing_metadata()

    async def _refuse(self, context: Context, call: Call, reason: str, request_id: str) -> None:
        response = service_pb2.ModelStreamInferResponse(error_message=reason)
        response.infer_response.id = request_id
        await self._write(context, call, response.SerializeToString())

    async def _write(self, context: Context, call: Call, message: bytes) -> None:
        async with call.writing:
            if call.is_left:
                return
            call.writing_since = time.monotonic()
            try:
                await context.write(message)
            except Exception:
                # gRPC has no public name for what it raises when the client has gone.
                call.is_left = True
            call.heard, call.writing_since = time.monotonic(), None

    async def _farewell(
        self, upstream: Any, answering: asyncio.Task[Ended], asking: asyncio.Task[None], call: Call
    ) -> None:
        """Ends what a client has left behind: its requests are stopped before the call to Triton is cancelled."""
        asking.cancel()
        await asyncio.wait([asking])
        try:
            with contextlib.suppress(Exception):
                await upstream.done_writing()
            if call.waiting.awaited:
                await asyncio.gather(*(self.stop(request_id) for request_id in call.ids))
            await asyncio.wait([answering], timeout=_ENDING_SECONDS)
        finally:
            upstream.cancel()
        await asyncio.wait([answering])

    async def admit(self, work: Callable[[Context, Call], Awaitable[None]], context: Context) -> None:
        """Does a call's work, if there is room for it, until it or the gate ends it."""
        task = asyncio.current_task()
        call = self._calls.open(task) if task else None
        if call is None:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._settings.max_calls} calls are open, which is as many as may be: try again later",
            )
            return
        try:
            with self._losses.watching(call.waiting):
                await work(context, call)
        except asyncio.CancelledError:
            if call.verdict is None:
                raise
            await context.abort(*call.verdict)
        finally:
            self._calls.close(call)

    def _metadata(self, context: Context | None = None) -> tuple[tuple[str, str | bytes], ...]:
        """The client's, without what is Triton's, and the secret."""
        given = context.invocation_metadata() if context else ()
        return (*((key, value) for key, value in given if methods.travels(key)), (_ACCESS, self._settings.access))


class _Handlers(grpc.GenericRpcHandler):
    """Every call is handled as a stream: one that is refused is not read at all."""

    def __init__(self, door: GrpcDoor) -> None:
        self._door = door

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        door, method = self._door, details.method
        if method == methods.STREAM:
            work = functools.partial(door.admit, door.stream)
        elif method in methods.TELLING:
            work = functools.partial(door.admit, functools.partial(door.tell, method))
        else:
            work = functools.partial(door.closed, method)

        async def handle(_: object, context: Context) -> None:
            await work(context)

        return grpc.stream_stream_rpc_method_handler(handle)


def _count(answer: bytes, call: Call) -> None:
    """Takes note of a request's last answer: an error, the final one, or the only one of a stage alone."""
    message = service_pb2.ModelStreamInferResponse.FromString(answer)
    response = message.infer_response
    model, is_final = response.model_name, response.parameters[_FINAL].bool_param
    if message.error_message or (is_final if model == ENSEMBLE else response.outputs):
        call.waiting.answer(model)


def _ended(error: grpc.aio.AioRpcError) -> Ended:
    return error.code(), error.details() or "", tuple(error.trailing_metadata() or ())
