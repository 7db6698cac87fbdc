"""The gRPC calls that are open, so that those which nobody needs give way to others."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from dataclasses import dataclass, field

import grpc

from build.serve.gate.budget import allocated_bytes
from build.serve.gate.losses import Waiting
from build.serve.gate.settings import GateSettings

_SWEEP_SECONDS = 0.2
# A call that has just come has had no time to ask.
_YOUNG_SECONDS = 5.0
# With more than this share of the calls or connections that may be, those that ask nothing give way.
_CROWDED = 0.75
# A message is there three times while it is handed on: as gRPC received it, as bytes, and as gRPC sends it.
_COPIES = 3
# The gate itself and its many small calls may take this much.
_OWN_BYTES = 256 * 2**20
# The ids that are stopped when their client goes away.
_REMEMBERED_IDS = 64


@dataclass(eq=False)
class Call:
    """One open call."""

    task: asyncio.Task[object]
    waiting: Waiting = field(init=False)
    heard: float = field(default_factory=time.monotonic)
    """When the last message went either way."""
    writing_since: float | None = None
    ids: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_IDS))
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever writes to the client: answers and refusals come from different tasks."""
    is_left: bool = False
    """The client has gone; what comes for it is passed over."""
    verdict: tuple[grpc.StatusCode, str] | None = None
    """Why the gate ends the call."""

    def __post_init__(self) -> None:
        self.waiting = Waiting(functools.partial(self.end, grpc.StatusCode.UNAVAILABLE))

    def end(self, code: grpc.StatusCode, reason: str) -> None:
        """Ends it, unless it is being ended."""
        if self.verdict is None:
            self.verdict = (code, reason)
            self.task.cancel()


class Calls:
    """All open calls. `sweep` runs as long as the gate."""

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings
        self._open: set[Call] = set()
        self._crowd = int(_CROWDED * min(settings.max_calls, settings.max_connections))
        self._max_allocated_bytes = _OWN_BYTES + _COPIES * settings.max_held_bytes

    def open(self, task: asyncio.Task[object]) -> Call | None:
        """A new call, or None when there are as many as may be and all are in use."""
        if len(self._open) >= self._settings.max_calls and not self._make_room(
            1, _YOUNG_SECONDS, "others need its place"
        ):
            return None
        call = Call(task)
        self._open.add(call)
        return call

    def close(self, call: Call) -> None:
        self._open.discard(call)

    async def sweep(self) -> None:
        """Ends calls that stand still, and, when places or memory run short, those that wait for no answer."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = time.monotonic()
            for call in self._open:
                self._end_still(call, now)
            if (excess := len(self._open) - self._crowd) > 0:
                self._make_room(excess, _YOUNG_SECONDS, "others need its place")
            if allocated_bytes() > self._max_allocated_bytes:
                reason = "the gate is out of memory for requests: try again later"
                self._make_room(1 + len(self._open) // 4, 0.0, reason)

    def _end_still(self, call: Call, now: float) -> None:
        bounds = self._settings
        if call.writing_since is not None and now - call.writing_since > bounds.stall_seconds:
            call.end(grpc.StatusCode.ABORTED, f"the answer was not read for {bounds.stall_seconds:g} s")
        elif not call.waiting.awaited and now - call.heard > bounds.idle_seconds:
            call.end(grpc.StatusCode.ABORTED, f"nothing was asked for {bounds.idle_seconds:g} s")
        elif now - call.heard > bounds.silence_seconds:
            call.end(grpc.StatusCode.ABORTED, f"nothing was heard for {bounds.silence_seconds:g} s")

    def _make_room(self, count: int, silent_seconds: float, reason: str) -> bool:
        """Ends calls that wait for no answer, those first that have been silent for longest; whether there was one."""
        since = time.monotonic() - silent_seconds
        idle = [call for call in self._open if not call.waiting.awaited and call.verdict is None and call.heard < since]
        idle.sort(key=lambda call: call.heard)
        for call in idle[:count]:
            call.end(grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
            self.close(call)
        return bool(idle)
