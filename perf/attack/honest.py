"""Clients who only ask questions, while others attack: what they see is what an attack costs.

A process of its own, `python -m perf.attack.honest`: it writes a line of JSON about every request, and ends when its
input does.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from perf.attack import wire
from perf.attack.stack import Stack
from perf.load.traffic.workload import QUESTIONS, greedy, video_files
from qwen3_vl_client import Client, Qwen3VLError

TEXT, VIDEO, GRPC = "API, text", "API, video", "gRPC, text"
ANSWER_TOKENS = 8
PAUSE_SECONDS = 0.2
PATIENCE_SECONDS = 30.0
START_SECONDS = 120.0
_KEY = "HONEST_KEY"


@dataclass(frozen=True)
class Asked:
    """started: seconds of the system's monotonic clock. error: empty for a request that was answered."""

    kind: str
    started: float
    seconds: float
    error: str


class Honest:
    """The running clients of a stack; `asked` grows while they run."""

    def __init__(self, stack: Stack) -> None:
        options = [f"--{name}={value}" for name in ("api", "grpc", "model") if (value := getattr(stack, name))]
        self.asked: list[Asked] = []
        self._kinds = {*((TEXT, VIDEO) if stack.api else ()), *((GRPC,) if stack.grpc else ())}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perf.attack.honest", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A command line is anybody's to read.
            env={**os.environ, _KEY: stack.key_c or ""},
        )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.asked.append(Asked(**json.loads(line)))

    def wait_answered(self) -> None:
        """Until a request of each kind was answered. Raises RuntimeError if one is not."""
        deadline = time.monotonic() + START_SECONDS
        while {one.kind for one in self.asked if not one.error} != self._kinds:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"honest clients are not answered: {[one.error for one in self.asked][-3:]}")
            time.sleep(0.1)

    def close(self) -> None:
        """Returns when the last request has ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._reading.join()


@contextlib.contextmanager
def running(stack: Stack) -> Iterator[Honest]:
    honest = Honest(stack)
    try:
        yield honest
    finally:
        honest.close()


def question(model: str, text: str, *parts: dict[str, object]) -> dict[str, object]:
    """The body of a short chat."""
    content = [*parts, {"type": "text", "text": text}]
    sampling = {"max_tokens": ANSWER_TOKENS, "temperature": 0, "ignore_eos": True}
    return {"model": model, "messages": [{"role": "user", "content": content}], **sampling}


def upload_video(api: str, key: str | None) -> str:
    """The id of a small video."""
    body, headers = wire.multipart("honest.mp4", video_files()[0].read_bytes())
    answer = wire.send(api, "POST", "/v1/files", body, {**headers, **wire.bearer(key)})
    if answer.status != 200:
        raise RuntimeError(f"an honest upload was refused: {answer}")
    return str(answer.json()["id"])


def _loop(kind: str, ask: Callable[[str], str], stopping: threading.Event) -> None:
    """`ask` gives an error, or nothing."""
    for number in itertools.count():
        if stopping.is_set():
            return
        started = time.monotonic()
        try:
            error = ask(f"{number}: {QUESTIONS[number % len(QUESTIONS)]}")
        except OSError as failed:
            error = f"{type(failed).__name__}: {failed}"
        # One call, so that lines of several threads do not mix.
        sys.stdout.write(json.dumps(asdict(Asked(kind, started, time.monotonic() - started, error))) + "\n")
        sys.stdout.flush()
        stopping.wait(PAUSE_SECONDS)


def _ask_api(api: str, key: str | None, body: dict[str, object]) -> str:
    answer = wire.send_json(api, "/v1/chat/completions", body, wire.bearer(key), timeout_seconds=PATIENCE_SECONDS)
    return "" if answer.status == 200 else str(answer)


def _ask_grpc(url: str, text: str) -> str:
    """On a connection of its own, as who comes for the first time."""
    try:
        with Client(url) as client:
            client.ask(question=text, sampling=greedy(ANSWER_TOKENS), timeout=PATIENCE_SECONDS)
    except Qwen3VLError as error:
        return str(error)
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--api")
    parser.add_argument("--grpc")
    parser.add_argument("--model")
    given = parser.parse_args()
    key = os.environ[_KEY] or None
    kinds: dict[str, Callable[[str], str]] = {}
    if given.api:
        video: dict[str, object] = {"type": "video_url", "video_url": {"url": upload_video(given.api, key)}}
        kinds[TEXT] = lambda text: _ask_api(given.api, key, question(given.model, text))
        kinds[VIDEO] = lambda text: _ask_api(given.api, key, question(given.model, text, video))
    if given.grpc:
        kinds[GRPC] = lambda text: _ask_grpc(given.grpc, text)
    stopping = threading.Event()
    threads = [threading.Thread(target=_loop, args=(kind, ask, stopping)) for kind, ask in kinds.items()]
    for thread in threads:
        thread.start()
    # Ctrl-C reaches the whole group; the end of the input comes after it.
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.read()
    stopping.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
