"""`make fuzz-tensors`: random wrong requests to every tensor of every model, at the ports that clients have.

Each case must be answered or refused, no process may end, and an honest question is answered every 500 cases. A case is
made again from the seed and its number (`--first`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import grpc
from tritonclient.grpc import service_pb2

from build.serve.deployment import end_on_signals
from perf.attack.processes import Watched
from perf.attack.stack import Stack, started
from perf.attack.tensor_writing import Case, make
from qwen3_vl_client import AsyncClient, Qwen3VLError

AT_ONCE = 8
ROUND = 500
CASE_SECONDS = 30.0
"""More than any of these takes on a busy machine."""
SHORT_SECONDS = 0.3
"""How long an answer is waited for that is not due: the rest of the request never comes."""
RECOVERY_SECONDS = 120.0
ANSWERED, REFUSED, CLOSED, LEFT, HUNG = "answered", "refused", "closed", "left", "hung"
_SERVICE = "/inference.GRPCInferenceService"


class Doors:
    """A server's ports, and what becomes of a case there."""

    def __init__(self, target: str, http: str, channel: grpc.aio.Channel) -> None:
        self._infer = channel.unary_unary(f"{_SERVICE}/ModelInfer")
        self._stream = channel.stream_stream(f"{_SERVICE}/ModelStreamInfer")
        self._http = urlsplit(http)

    async def send(self, case: Case) -> str:
        try:
            if case.door == "http":
                return await asyncio.wait_for(self._send_http(case), CASE_SECONDS)
            return await self._send_grpc(case)
        except (TimeoutError, asyncio.TimeoutError):
            return HUNG
        except OSError:
            return CLOSED

    async def _send_grpc(self, case: Case) -> str:
        try:
            if case.door == "infer":
                await self._infer(case.content, timeout=CASE_SECONDS)
                return ANSWERED
            told = ANSWERED
            async for response in self._stream(iter([case.content]), timeout=CASE_SECONDS):
                if service_pb2.ModelStreamInferResponse.FromString(response).error_message:
                    told = REFUSED
            return told
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                return HUNG
            gone = error.code() == grpc.StatusCode.UNAVAILABLE and "restricted" not in str(error.details())
            return CLOSED if gone else REFUSED

    async def _send_http(self, case: Case) -> str:
        reader, writer = await asyncio.open_connection(self._http.hostname, self._http.port)
        try:
            lines = [f"POST {case.path} HTTP/1.1", f"Host: {self._http.netloc}", "Connection: close"]
            head = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in case.headers), "", ""])
            with contextlib.suppress(ConnectionError):
                writer.write(head.encode() + case.content)
                await writer.drain()
            try:
                line = await asyncio.wait_for(reader.readline(), SHORT_SECONDS if case.short else None)
            except (TimeoutError, asyncio.TimeoutError):
                if case.short:
                    return LEFT
                raise
            rest = await reader.read()
        finally:
            writer.close()
        words = line.split()
        if len(words) < 2:
            return CLOSED
        # A stream's error comes after its head.
        return ANSWERED if words[1] == b"200" and b'"error"' not in rest else REFUSED


async def ask_honestly(target: str, seconds: float) -> str:
    """Asks until it is answered, for so long; gives the last error, or nothing."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            async with AsyncClient(target) as client:
                await client.ask(question="Are you there?", max_tokens=2, timeout=CASE_SECONDS)
            return ""
        except Qwen3VLError as error:
            if time.monotonic() > deadline:
                return str(error)
        await asyncio.sleep(0.3)


async def fuzz(stack: Stack, cases: range, seed: int) -> tuple[Counter[tuple[str, str, str]], list[str]]:
    """Counts by model, door and end; and failures in words."""
    assert stack.grpc is not None
    assert stack.http is not None
    counts: Counter[tuple[str, str, str]] = Counter()
    failures: list[str] = []
    watched = Watched()
    watched.look(stack.own.pids() if stack.own else {})
    async with grpc.aio.insecure_channel(stack.grpc, options=[("grpc.max_receive_message_length", -1)]) as channel:
        doors = Doors(stack.grpc, stack.http, channel)
        for first in range(cases.start, cases.stop, ROUND):
            numbers = iter(range(first, min(first + ROUND, cases.stop)))
            await asyncio.gather(*(_work(doors, numbers, seed, counts, failures) for _ in range(AT_ONCE)))
            where = f"cases {first} to {min(first + ROUND, cases.stop) - 1}"
            error = await ask_honestly(stack.grpc, 0.0)
            if error:
                failures.append(f"{where}: an honest question was told {error}")
                await ask_honestly(stack.grpc, RECOVERY_SECONDS)
            if dead := watched.look(stack.own.pids() if stack.own else {}):
                failures.append(f"{where}: {', '.join(dead)} died")
            ends = Counter(end for (_, _, end), count in counts.items() for _ in range(count))
            print(f"{where}: {dict(ends)}", flush=True)
    return counts, failures


async def _work(
    doors: Doors, numbers: Iterator[int], seed: int, counts: Counter[tuple[str, str, str]], failures: list[str]
) -> None:
    for number in numbers:
        case = make(seed, number)
        end = await doors.send(case)
        counts[(case.model, case.door, end)] += 1
        if end == HUNG:
            failures.append(f"case {number} ({case.model}, {case.door}): neither answered nor refused")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz-tensors", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--model", default="", help="a checkpoint: folder or hub name (default: the demo's)")
    parser.add_argument("--grpc-url", metavar="HOST:PORT", help="of a server that runs; without it one is started")
    parser.add_argument("--http-url", metavar="http://HOST:PORT", help="of the same server")
    given = parser.parse_args()
    end_on_signals()
    began = time.monotonic()
    cases = range(given.first, given.first + given.cases)
    if given.grpc_url:
        stack = Stack(None, None, None, given.http_url, given.grpc_url, None, None)
        counts, failures = asyncio.run(fuzz(stack, cases, given.seed))
    else:
        with started(given.model, fronts=False) as stack:
            counts, failures = asyncio.run(fuzz(stack, cases, given.seed))
    for (model, door, end), count in sorted(counts.items()):
        print(f"{model:18} {door:8} {end:10} {count:6}")
    print(f"{given.cases} cases, seed {given.seed}, in {time.monotonic() - began:.0f} s; {len(failures)} failures")
    print(*failures[:50], sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
