"""Forms of answers and metrics through the real server."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wire
from tests.support.serving import Server

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
SERIES = re.compile(r'^(qwen3_vl_\w+)(?:\{(?:\w+="([^"]*)")?\})? (\S+)$', re.MULTILINE)


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[Server]:
    settings = {"decoder.kv_cache_tokens": "4096", "decoder.threads": "1", "vision_encoder.threads": "1"}
    with Server(checkpoint, settings) as running:
        yield running


def scrape(server: Server) -> dict[tuple[str, str], float]:
    """(name, the label's value) -> value"""
    with urllib.request.urlopen(f"{server.metrics_url}/metrics") as page:
        text = page.read().decode()
    return {(name, label): float(value) for name, label, value in SERIES.findall(text)}


def settled(server: Server, requests: int) -> dict[tuple[str, str], float]:
    """The metrics when `requests` have been counted and none runs."""
    deadline = time.monotonic() + 60
    while True:
        found = scrape(server)
        ended = sum(value for (name, _), value in found.items() if name == "qwen3_vl_requests_total")
        if ended >= requests and found["qwen3_vl_batch_size", ""] == 0:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_metrics_are_what_the_requests_were_told(server: Server) -> None:
    # The supervisor's question whether the server answers counts too.
    before = settled(server, 1)
    text = "Which colour has the second bird from the left in the tree behind the house?"
    asked = [wire.question(text, sampling={"max_tokens": count, "ignore_eos": True}) for count in (3, 9, 9)]
    answers = [wire.ask(server.grpc_url, inputs) for inputs in asked]
    with pytest.raises(wire.RequestError, match="invalid_argument"):
        wire.ask(server.grpc_url, wire.question("?", sampling={"top_p": 7}))
    after = settled(server, int(before.get(("qwen3_vl_requests_total", "length"), 0)) + 4)

    def grown(name: str, label: str = "") -> float:
        return after.get((f"qwen3_vl_{name}", label), 0.0) - before.get((f"qwen3_vl_{name}", label), 0.0)

    usages = [answer.usage for answer in answers]
    hits = sum(usage["cached_tokens"] for usage in usages)
    assert hits > 0
    assert grown("prefix_hit_tokens_total") == hits
    assert grown("tokens_total", "prefill") == sum(usage["prompt_tokens"] for usage in usages) - hits
    assert grown("tokens_total", "decode") == sum(usage["completion_tokens"] for usage in usages) == 21
    assert (grown("requests_total", "length"), grown("requests_total", "invalid_argument")) == (3, 1)
    assert grown("queue_seconds_count") == grown("first_token_seconds_count") == 3
    assert grown("between_tokens_seconds_count") == 2 + 8 + 8
    assert grown("first_token_seconds_sum") == pytest.approx(sum(u["seconds"]["first_token"] for u in usages), abs=1e-3)
    assert grown("queue_seconds_sum") == pytest.approx(
        sum(u["seconds"]["decoder"]["waited_for_blocks"] for u in usages), abs=1e-3
    )
    longest = max(u["seconds"]["decoder"]["longest_between_tokens"] for u in usages)
    assert 0 < grown("between_tokens_seconds_sum") <= 18 * longest
    assert grown("between_tokens_seconds_bucket", "+Inf") == 18
    assert sum(after["qwen3_vl_kv_blocks", state] for state in ("reserved", "cached", "free")) == 4096 / 16
    assert after["qwen3_vl_kv_blocks", "reserved"] == 0 < after["qwen3_vl_kv_blocks", "cached"]
    assert after["qwen3_vl_queue_length", ""] == after["qwen3_vl_queue_oldest_seconds", ""] == 0


def test_a_queue_is_seen_with_its_age(server: Server) -> None:
    """The first holds more than half of the cache, so that the second waits for it."""
    long = {"max_tokens": 2500, "ignore_eos": True}
    first = wire.Request(server.grpc_url, wire.question("Go on.", sampling=long))
    second = wire.Request(server.grpc_url, wire.question("Go on too.", sampling=long))
    deadline = time.monotonic() + 60
    while (found := scrape(server))["qwen3_vl_queue_oldest_seconds", ""] < 0.3:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert (found["qwen3_vl_queue_length", ""], found["qwen3_vl_batch_size", ""]) == (1, 1)
    assert found["qwen3_vl_kv_blocks", "reserved"] > 128
    for request in (second, first):
        wire.stop(server.grpc_url, request.id)
    wire.wait_idle(server.grpc_url)


def test_answers_of_a_form_beside_free_ones(server: Server) -> None:
    texts: dict[str, wire.Answer] = {}
    wanted = {"type": "json_schema", "json_schema": {"name": "bird", "schema": SCHEMA}}

    def ask(name: str, sampling: dict[str, object]) -> None:
        texts[name] = wire.ask(server.grpc_url, wire.question("Which bird?", sampling=sampling))

    threads = [
        threading.Thread(target=ask, args=arguments)
        for arguments in (
            ("schema", {"response_format": wanted, "temperature": 1, "seed": 4, "max_tokens": 200}),
            ("regex", {"response_format": {"type": "regex", "regex": "[0-9]{3} birds"}, "temperature": 0}),
            ("free", {"temperature": 0, "max_tokens": 12, "ignore_eos": True}),
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answer = json.loads(texts["schema"].text)
    assert set(answer) == {"colour", "count"}
    assert answer["colour"] in ("red", "green")
    assert re.fullmatch("[0-9]{3} birds", texts["regex"].text)
    assert texts["schema"].finish_reason == texts["regex"].finish_reason == "stop"
    assert texts["free"].usage["completion_tokens"] == 12


def test_a_form_that_cannot_be_is_the_callers_mistake(server: Server) -> None:
    wanted = {"response_format": {"type": "regex", "regex": "(never"}}
    with pytest.raises(
        wire.RequestError, match=r"invalid_argument: .*response_format cannot be used: .*unclosed group"
    ):
        wire.ask(server.grpc_url, wire.question("?", sampling=wanted))
    wire.wait_idle(server.grpc_url)
