"""The gate's process, which ends with its parent or on SIGTERM.

It reads its settings from standard input, says `ready`, and is told on standard input of stages that died.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from build.serve.gate.budget import Budget
from build.serve.gate.calls import Calls
from build.serve.gate.forwarding import refusal
from build.serve.gate.grpc_door import GrpcDoor
from build.serve.gate.http_door import PROBES, HttpDoor, MetricsDoor
from build.serve.gate.losses import Losses
from build.serve.gate.settings import GateSettings
from qwen3_vl_client.front.http.connections import Bounds
from qwen3_vl_client.front.http.handles import room_for
from qwen3_vl_client.front.http.hosts import Hosts, HostsMiddleware
from qwen3_vl_client.front.http.serving import configured

_READY = "ready"
_BACKLOG = 128


class _Server(uvicorn.Server):
    """One of two in a process that looks after signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(settings: GateSettings) -> None:
    """Serves until SIGTERM or the end of standard input. Raises OSError or RuntimeError for a port that is taken."""
    losses = Losses()
    hearing = asyncio.create_task(_hear(losses))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, hearing.cancel)
    # The handles of three ports, and of the connections behind two of them.
    possible = room_for(3 * settings.max_connections, _BACKLOG) // 3
    settings = dataclasses.replace(settings, max_connections=max(1, min(settings.max_connections, possible)))
    calls = Calls(settings)
    budget = Budget(settings.max_held_bytes)
    grpc_door = GrpcDoor(settings, budget, calls, losses)
    await grpc_door.start()
    servers = [_server(settings, HttpDoor(settings, budget, losses, grpc_door.stop), PROBES)]
    ports = [settings.http_port]
    if settings.metrics_port:
        servers.append(_server(settings, MetricsDoor(settings), (MetricsDoor.PATH,)))
        ports.append(settings.metrics_port)
    sockets = [_listening(settings.host, port) for port in ports]
    serving = [asyncio.create_task(server.serve([it])) for server, it in zip(servers, sockets, strict=True)]
    sweeping = asyncio.create_task(calls.sweep())
    while not all(server.started for server in servers):
        await asyncio.sleep(0.01)
    print(_READY, flush=True)

    await asyncio.wait([hearing, sweeping, *serving], return_when=asyncio.FIRST_COMPLETED)
    for server in servers:
        server.should_exit = True
    await asyncio.gather(grpc_door.close(), *serving)
    if sweeping.done():
        sweeping.result()
    sweeping.cancel()


async def _hear(losses: Losses) -> None:
    """Hears of stages that died. The other end of standard input is the parent's, and ends with it."""
    said = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), sys.stdin)
    while line := await said.readline():
        losses.stage_died(**json.loads(line))


def _server(settings: GateSettings, door: ASGIApp, probes: tuple[str, ...]) -> _Server:
    hosts = Hosts.listening(settings.host, settings.public_hosts)
    app = HostsMiddleware(door, hosts, lambda error: refusal(error.status, error.message), probes=probes)
    bounds = Bounds(
        connections=settings.max_connections,
        idle_seconds=settings.idle_seconds,
        reading_seconds=settings.stall_seconds,
    )
    return _Server(configured(app, bounds=bounds, grace_seconds=settings.drain_seconds))


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def main() -> int:
    try:
        # Not a byte more than its line: what follows is for who listens later.
        with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as unbuffered:
            settings = GateSettings.from_json(unbuffered.readline().decode())
        asyncio.run(run(settings))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
