"""The field of an attack: the stack, a folder for its files, and what everybody else notices meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from perf.attack import wire
from perf.attack.expect import GotThroughError, expect
from perf.attack.honest import question
from perf.attack.processes import Watched
from perf.attack.stack import Stack

PROBE_SECONDS = 0.1
SILENT_SECONDS = 3.0
"""A door that answers nobody for longer is shut: something cheap takes milliseconds."""
GROWN_MIB = 512.0
"""The memory that one attack may add to a process while it runs."""
RECOVERY_SECONDS = 60.0


@dataclass
class Seen:
    """The answers to somebody who asked for something cheap again and again."""

    longest_seconds: float = 0.0
    errors: list[str] = field(default_factory=list)
    grown_mib: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        grown = [f"{name} +{mib:,.0f} MiB" for name, mib in self.grown_mib.items() if mib > GROWN_MIB / 8]
        return ", ".join([f"others waited {self.longest_seconds:.1f} s", *grown])


class Field:
    """One for all attacks of a run."""

    def __init__(self, stack: Stack, folder: Path, watched: Watched) -> None:
        self.stack = stack
        self.folder = folder
        self.watched = watched

    def chat(self, text: str, key: str | None = None) -> wire.Answer:
        """A short question to the API as owner A, or with another key."""
        return wire.send_json(
            self.api, "/v1/chat/completions", question(self.stack.model, text), wire.bearer(key or self.stack.key_a)
        )

    @property
    def api(self) -> str:
        return _there(self.stack.api, "API")

    @property
    def keyless(self) -> str:
        return _there(self.stack.keyless, "API without keys")

    @property
    def page(self) -> str:
        return _there(self.stack.page, "page")

    @property
    def http(self) -> str:
        return _there(self.stack.http, "HTTP port of Triton")

    @property
    def grpc(self) -> str:
        return _there(self.stack.grpc, "gRPC port of Triton")

    @contextlib.contextmanager
    def others(self, *doors: str, seconds: float = SILENT_SECONDS, mib: float = GROWN_MIB) -> Iterator[Seen]:
        """Others ask for something cheap at these doors while the block runs. Raises GotThroughError at its end where
        somebody was refused, had to wait longer than `seconds`, or a process took `mib` more than before."""
        named = self.stack.doors()
        seen = Seen()
        stopping = threading.Event()
        threads = [
            threading.Thread(target=_ask_again, args=(named[door], _cheap(door), self.stack.key_a, seen, stopping))
            for door in doors
            if door in named
        ]
        pids = self.stack.own.pids() if self.stack.own else {}
        before = self.watched.forget_peaks(pids)
        for thread in threads:
            thread.start()
        try:
            yield seen
        finally:
            stopping.set()
            for thread in threads:
                thread.join()
            seen.grown_mib = self.watched.grown_mib(before)
        expect(not seen.errors, f"others were refused {len(seen.errors)} times: {seen.errors[:1]}")
        expect(seen.longest_seconds <= seconds, str(seen))
        expect(all(grown <= mib for grown in seen.grown_mib.values()), str(seen))

    def died(self) -> list[str]:
        """The processes that have died since the last call."""
        return self.watched.look(self.stack.own.pids()) if self.stack.own else []

    def recover(self) -> float:
        """Waits until a question is answered; gives the seconds that it took. Raises GotThroughError if none is."""
        if self.stack.api is None:
            return 0.0
        began = time.monotonic()
        while time.monotonic() < began + RECOVERY_SECONDS:
            with contextlib.suppress(OSError):
                if self.chat("Are you there?").status == 200:
                    return time.monotonic() - began
            time.sleep(0.2)
        raise GotThroughError(f"no question was answered for {RECOVERY_SECONDS:g} s afterwards")


def _there(url: str | None, what: str) -> str:
    if url is None:
        raise ValueError(f"the stack has no {what}")
    return url


def _cheap(door: str) -> str:
    """The path of something that costs the door next to nothing."""
    paths = {"page": "/", "Triton HTTP": "/v2/models/qwen3_vl/ready", "metrics": "/metrics", "health": "/ready"}
    return paths.get(door, "/v1/models")


def _ask_again(url: str, path: str, key: str | None, seen: Seen, stopping: threading.Event) -> None:
    while not stopping.is_set():
        started = time.monotonic()
        try:
            answer = wire.send(url, "GET", path, headers=wire.bearer(key))
        except OSError as error:
            seen.errors.append(f"{url}{path}: {type(error).__name__} {error}")
        else:
            if answer.status != 200:
                seen.errors.append(f"{url}{path}: {answer}")
        seen.longest_seconds = max(seen.longest_seconds, time.monotonic() - started)
        stopping.wait(PROBE_SECONDS)
