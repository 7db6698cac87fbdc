"""Requests that run together: each gets the tokens that it gets alone, whoever else is there and in whatever order."""

import random

import pytest

from tests.support import wire
from tests.support.media import make_image, make_video


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    """Eight of different lengths: text, images, videos; short and long answers."""
    folder = tmp_path_factory.mktemp("eight")
    inputs = []
    for number, (frames, tokens) in enumerate(
        [(4, 40), (40, 8), (16, 64), (0, 100), (80, 16), (0, 5), (24, 33), (8, 1)]
    ):
        media = {}
        if frames:
            path = folder / f"{number}.mp4"
            make_video(path, width=96 + 16 * number, height=96, frames=frames, fps=8, seed=number)
            media["video"] = [path.read_bytes()]
        elif tokens == 5:
            media["image"] = [make_image(width=200, height=100, seed=number)]
        sampling = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True, "return_token_ids": True}
        inputs.append(wire.question(f"Question {number}?", sampling=sampling, options={"fps": 8}, **media))
    return inputs


@pytest.fixture(scope="module")
def alone(server, requests):
    return [wire.ask(server.grpc_url, inputs).token_ids for inputs in requests]


@pytest.mark.parametrize("seed", range(3))
def test_together_as_alone(server, requests, alone, seed):
    order = list(range(len(requests)))
    random.Random(seed).shuffle(order)
    answers = wire.ask_together(server.grpc_url, [requests[place] for place in order])
    for place, answer in zip(order, answers, strict=True):
        assert isinstance(answer, wire.Answer), answer
        assert answer.token_ids == alone[place]
    wire.wait_idle(server.grpc_url)


def test_more_than_the_cache_holds_wait_their_turn(server, requests, alone):
    """Each of these reserves a third of the cache: they cannot all be in at once, and all are answered."""
    sampling = {"temperature": 0, "max_tokens": 5000, "stop_token_ids": [], "return_token_ids": True}
    inputs = [wire.question("Go on", sampling={**sampling, "seed": n, "temperature": 1.0}) for n in range(5)]
    answers = wire.ask_together(server.grpc_url, [*inputs, requests[3]])
    assert all(isinstance(answer, wire.Answer) for answer in answers), answers
    assert answers[-1].token_ids == alone[3]
    wire.wait_idle(server.grpc_url)
