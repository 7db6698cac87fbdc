"""The trained checkpoint, asked through the real server about fixed short videos that it was never trained on.

Only what it has learned so far is asked; its card says what it has not.
"""

from collections.abc import Iterator

import pytest

from build.demo_checkpoint.evaluation import make_case
from build.demo_checkpoint.training.served import look_at
from perf.checks import accuracy
from qwen3_vl_client import Client
from tests.support.serving import Server

SEED = 11
SECONDS = 4
BARS = {
    "when": 0.9,
    "when in minutes": 0.9,
    "what at": 0.9,
    "not shown": 0.9,
    "where": 0.9,
    "how many": 0.9,
    "summary": 0.7,
}
VIDEOS = 10


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Server(accuracy.CHECKPOINT) as server, Client(server.grpc_url) as client:
        yield client


@pytest.fixture(scope="module")
def right(client: Client) -> dict[tuple[str, str], list[bool]]:
    cases = [make_case([SEED, index], seconds=SECONDS, languages=("en", "zh")) for index in range(VIDEOS)]
    return accuracy.ask_all(client, cases, tuple(BARS))


@pytest.mark.parametrize("kind", BARS)
def test_answers_are_right(right: dict[tuple[str, str], list[bool]], kind: str) -> None:
    answers = [*right[kind, "en"], *right[kind, "zh"]]
    assert answers
    assert sum(answers) >= BARS[kind] * len(answers)


@pytest.mark.parametrize("question", ["List the chapters.", "What is shown at 4.4 seconds?"])
def test_the_training_sees_what_the_server_sees(client: Client, question: str) -> None:
    case = make_case(SEED, seconds=9, languages=())
    usage = client.ask(case.file, question, max_tokens=1).usage
    assert tuple(f"{seconds:.1f}" for seconds in usage.media[0].timestamps) == look_at(case.file, question).timestamps
