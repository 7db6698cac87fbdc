"""The same videos and questions as perf_analyzer's, without a pause: for locust, so that figures can be compared."""

from __future__ import annotations

import itertools
import os

from locust import User, constant, task

from perf.load.traffic.locustfile import VIDEOS, timed
from perf.load.traffic.workload import QUESTIONS, greedy
from qwen3_vl_client import Client

TURNS = itertools.count()
SAMPLING = greedy(int(os.environ["STEADY_TOKENS"]))


class SteadyUser(User):
    """Asks about the videos in turn."""

    wait_time = constant(0)

    def on_start(self) -> None:
        self.client = Client(os.environ["QWEN3_VL_URL"])

    def on_stop(self) -> None:
        self.client.close()

    @task
    def ask(self) -> None:
        video = list(VIDEOS.values())[next(TURNS) % len(VIDEOS)]
        timed("steady", lambda: self.client.stream(video, QUESTIONS[0], sampling=SAMPLING))
