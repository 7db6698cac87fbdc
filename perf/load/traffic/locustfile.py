"""Users who behave like users, for locust: `make load-web` shows its page, `make load-users` runs it headless.

QWEN3_VL_URL is the server's gRPC port, locust's `--host` its HTTP port. A server whose media root is the folder of
`load.workload.video_files` can be asked over HTTP. Where LOAD_RESULT names a file, the figures go there at the end.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent

# Before anything else uses gRPC: its calls have to yield to locust's other users.
import grpc.experimental.gevent
from locust import HttpUser, User, between, events, task
from locust.env import Environment
from locust.stats import RequestStats

from perf.load.traffic.workload import QUESTIONS, greedy, video_files
from qwen3_vl_client import Client, InvalidRequest, Qwen3VLError, Stream, TextDelta
from tests.support.media import make_image

grpc.experimental.gevent.init_gevent()

VIDEOS = {path.name: path.read_bytes() for path in video_files()}
IMAGE = make_image(width=160, height=120)
SHORT_ANSWER, LONG_ANSWER = greedy(16), greedy(500)


@events.init.add_listener
def prepare(environment: Environment, **_: object) -> None:
    # Imports have taken seconds in which gevent's clock stood still: a run would end that much too early.
    gevent.get_hub().loop.update_now()
    if path := os.environ.get("LOAD_RESULT"):
        # What locust writes by itself lacks the requests that ended after the run's time.
        events.quit.add_listener(lambda **_: Path(path).write_text(json.dumps(figures(environment.stats))))


def figures(stats: RequestStats) -> dict[str, Any]:
    """The figures of each kind of request, and the failures; times in seconds."""
    requests = [
        {
            "name": entry.name,
            "requests": entry.num_requests,
            "failures": entry.num_failures,
            "per_second": entry.total_rps,
            "mean": entry.avg_response_time / 1000,
            "percentiles": {f"p{n}": entry.get_response_time_percentile(n / 100) / 1000 for n in (50, 90, 95, 99)},
        }
        for entry in stats.entries.values()
    ]
    failures = [
        {"name": error.name, "error": str(error.error), "count": error.occurrences} for error in stats.errors.values()
    ]
    return {"requests": requests, "failures": failures}


class GrpcUser(User):
    """Uploads a video, asks, reads, often asks again about the same; sometimes leaves, sometimes sends rubbish."""

    wait_time = between(0.2, 1.0)
    weight = 3

    def on_start(self) -> None:
        self.client = Client(os.environ["QWEN3_VL_URL"])

    def on_stop(self) -> None:
        self.client.close()

    @task(6)
    def ask_and_ask_again(self) -> None:
        video = random.choice(list(VIDEOS.values()))
        timed("video", lambda: self.client.stream(video, QUESTIONS[0], sampling=SHORT_ANSWER))
        while random.random() < 0.5:
            question = f"{random.choice(QUESTIONS)} {random.randrange(1000)}"
            timed("video again", lambda: self.client.stream(video, question, sampling=SHORT_ANSWER))  # noqa: B023

    @task(2)
    def ask_about_an_image(self) -> None:
        timed("image", lambda: self.client.stream(question=QUESTIONS[1], image=IMAGE, sampling=SHORT_ANSWER))

    @task(2)
    def chat(self) -> None:
        timed("text", lambda: self.client.stream(question=QUESTIONS[2], sampling=SHORT_ANSWER))

    @task(1)
    def leave_in_the_middle(self) -> None:
        video = random.choice(list(VIDEOS.values()))
        timed("left", lambda: self.client.stream(video, QUESTIONS[0], sampling=LONG_ANSWER), leaves=True)

    @task(1)
    def send_rubbish(self) -> None:
        """A refusal is what is wanted."""
        started = time.perf_counter()
        error: Exception | None = None
        try:
            self.client.ask(random.randbytes(1000), QUESTIONS[0], sampling=SHORT_ANSWER)
            error = AssertionError("rubbish was answered")
        except InvalidRequest:
            pass
        except Qwen3VLError as other:
            error = other
        _fire("rubbish", started, error)


class CurlUser(HttpUser):
    """Asks about the server's own videos with curl's means: `generate_stream`, answers as server-sent events."""

    wait_time = between(0.2, 1.0)
    weight = 1

    @task
    def ask(self) -> None:
        body = {
            "video_uri": random.choice(list(VIDEOS)),
            "text_input": random.choice(QUESTIONS),
            "sampling_parameters": json.dumps(SHORT_ANSWER),
        }
        path = "/v2/models/qwen3_vl/generate_stream"
        with self.client.post(path, json=body, name="video by uri", stream=True, catch_response=True) as response:
            last: dict[str, Any] = {}
            for line in response.iter_lines():
                if line:
                    last = json.loads(line.decode().removeprefix("data: "))
            if not last.get("finish_reason"):
                response.failure(last.get("error", f"the answer has no end: {last}"))


def timed(name: str, send: Callable[[], Stream], *, leaves: bool = False) -> None:
    """One request, read to its end; reported under its name, its first word under `NAME, first word`."""
    started = time.perf_counter()
    error: Exception | None = None
    first = True
    try:
        with send() as stream:
            for event in stream:
                if isinstance(event, TextDelta) and first:
                    first = False
                    _fire(f"{name}, first word", started, None)
                    if leaves:
                        break
    except Qwen3VLError as failed:
        error = failed
    _fire(name, started, error)


def _fire(name: str, started: float, error: Exception | None) -> None:
    milliseconds = 1000 * (time.perf_counter() - started)
    events.request.fire(
        request_type="gRPC", name=name, response_time=milliseconds, response_length=0, exception=error, context={}
    )
