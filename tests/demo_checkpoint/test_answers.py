"""The trained checkpoint, asked through the real server about a few fixed videos that it was never trained on."""

from collections import defaultdict
from collections.abc import Iterator

import accuracy
import pytest
from demo_checkpoint.evaluation import Case, make_case
from qwen3_vl_client import Client
from serving import Server

SEED = 2026
CASES = 6


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [make_case([SEED, index], seconds=4 + index) for index in range(CASES)]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Server(accuracy.CHECKPOINT) as server, Client(server.grpc_url) as client:
        yield client


def test_answers_of_the_served_checkpoint(client: Client, cases: list[Case]) -> None:
    shares: dict[str, list[bool]] = defaultdict(list)
    for (kind, _), answers in accuracy.ask_all(client, cases, tuple(accuracy.BARS)).items():
        shares[kind] += answers
    print({kind: f"{sum(answers)} of {len(answers)}" for kind, answers in shares.items()})
