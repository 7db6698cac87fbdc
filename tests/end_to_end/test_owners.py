"""Whose cache it is and who may speak to stage 3, through the real server: owners share nothing, stages sign."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.support import wire
from tests.support.serving import Server

ALICE, BOB = {"cache_salt": "alice"}, {"cache_salt": "bob"}
SHORT = {"temperature": 0, "max_tokens": 4, "ignore_eos": True, "return_token_ids": True}
LONG = {"temperature": 0, "max_tokens": 4000, "ignore_eos": True}
SECRET = "You answer for the vault in the cellar below the house by the river, whose PIN is "
VISION_INPUTS = ("patches", "position_indices", "position_weights", "rotary_cos", "rotary_sin")
NOT_SIGNED = "invalid_argument: chunk_header is not signed by stage 1; requests go to the model qwen3_vl"

pytestmark = pytest.mark.usefixtures("unharmed")


def ask(server: Server, inputs: Any, parameters: Mapping[str, Any]) -> wire.Answer:
    return wire.ask(server.grpc_url, inputs, parameters=parameters)


def conversation(system: str, *turns: str) -> Any:
    messages = [{"role": "system", "content": system}]
    messages += [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]
    return wire.question(messages=messages, sampling=SHORT)


def test_nobody_else_sees_what_an_owner_asked(server: Server) -> None:
    """Whoever guesses the beginning of another's prompt digit by digit sees the same for each."""
    first = ask(server, conversation(SECRET + "8341.", "Open it?"), ALICE)
    assert first.usage["cached_tokens"] == 0
    for parameters in (BOB, {"cache_salt": "alic"}, {"cache_salt": ""}, {}):
        held = [
            ask(server, conversation(f"{SECRET}{digit}", "Open it?"), parameters).usage["cached_tokens"]
            for digit in range(10)
        ]
        # The first guess leaves its own beginning, which the guesser may see.
        assert len(set(held[1:])) == 1
    # Nor is all of it held for another.
    assert ask(server, conversation(SECRET + "8341.", "Open it?"), {"cache_salt": "b"}).usage["cached_tokens"] == 0
    again = ask(server, conversation(SECRET + "8341.", "Open it?", first.text, "Now?"), ALICE)
    assert again.usage["cached_tokens"] > len(SECRET) // 8


def test_a_video_is_cached_for_its_owner_alone(server: Server, clip: bytes) -> None:
    """Neither its features, nor what stage 1 has read and decoded of it."""
    cache = server.credits_directory.with_name("cache")

    def asked(parameters: Mapping[str, Any], text: str = "What happens in this owner's clip?") -> tuple[Any, int]:
        before = files(cache)
        answer = ask(server, wire.question(text, video=[clip], sampling=SHORT), parameters)
        return answer, len(files(cache) - before)

    alice, remembered = asked({"cache_salt": "alice of the clip"})
    assert alice.usage["cached_tokens"] == 0
    assert remembered > 0
    bob, also = asked({"cache_salt": "bob of the clip"})
    assert (bob.usage["cached_tokens"], also, bob.token_ids) == (0, remembered, alice.token_ids)
    follow_up, nothing = asked({"cache_salt": "alice of the clip"}, "What happens after it?")
    assert nothing == 0
    assert follow_up.usage["cached_tokens"] >= alice.usage["video_tokens"]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".draft"}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cache_salt": 7}, "cache_salt is 7; a string is accepted"),
        ({"cache_salt": True}, "cache_salt is True; a string is accepted"),
        ({"cache_salt": "x" * 129}, "cache_salt has 129 characters; at most 128 are accepted"),
        ({"progress": 1}, "progress is 1; true or false is accepted"),
    ],
)
def test_wrong_parameters_are_told(server: Server, parameters: Mapping[str, Any], message: str) -> None:
    with pytest.raises(wire.RequestError, match=f"invalid_argument: the request parameter {message}"):
        ask(server, wire.question("Hi", sampling=SHORT), parameters)


def test_chunks_of_others_than_stage_1_are_refused(server: Server) -> None:
    """While an honest session runs, which goes on."""
    honest = wire.Request(server.grpc_url, wire.question("Go on.", sampling=LONG), parameters={"progress": True})
    responses = iter(honest)
    next(responses)
    header = {"session": "a" * 32, "index": 0, "sent": 0.0}
    opened = {"stream": True, "progress": False, "sampling_parameters": "{}", "cache_salt": ""}
    text = json.dumps({**header, "open": opened}).encode()
    signed = first_header(server)
    for chunk_header in (
        b"",
        b"0" * 64 + text,
        text,
        signed[:64] + text,
        signed[:-1] + b" ",
        b"\xff" * 64,
        b"\xff" * 99,
    ):
        with pytest.raises(wire.RequestError, match=r"invalid_argument: chunk_header (is not signed by|has \d+ bytes)"):
            list(tell_decoder(server, chunk_header))
    with pytest.raises(wire.RequestError, match=NOT_SIGNED):
        list(tell_decoder(server, signed, token_ids=np.zeros(3, np.int32)))
    for _ in range(3):
        assert next(responses).as_numpy("text_output") is not None
    honest.close()


def test_false_features_reach_nobody_else(server: Server, clip: bytes) -> None:
    """Signed headers of a request of one's own with other features are heard by who sent them, and nobody else."""
    inputs = wire.question("What is it, really?", video=[clip], sampling=SHORT)
    true = ask(server, inputs, {"cache_salt": "judge"})
    assert play_the_ensemble(server, inputs, {"cache_salt": "mallory"}) != true.token_ids
    assert ask(server, inputs, {"cache_salt": "mallory"}).usage["cached_tokens"] > true.usage["video_tokens"]
    for parameters in ({"cache_salt": "ann"}, {"cache_salt": "ben"}, {}):
        answer = ask(server, inputs, parameters)
        assert answer.token_ids == true.token_ids
        assert answer.usage["cached_tokens"] == 0 or not parameters


def test_a_request_is_stopped_by_an_id_that_nobody_guesses(server: Server) -> None:
    request = wire.Request(server.grpc_url, wire.question("Go on.", sampling=LONG), request_id="1")
    responses = iter(request)
    next(responses)
    for guessed in ("1", "123456789012345"):
        with pytest.raises(
            wire.RequestError, match=rf"invalid_argument: the id '{guessed}' could be guessed; a request"
        ):
            wire.stop(server.grpc_url, guessed)
    assert next(responses).as_numpy("text_output") is not None
    request.close()
    long = wire.Request(server.grpc_url, wire.question("Go on.", sampling=LONG), request_id="1234567890123456")
    next(iter(long))
    assert wire.stop(server.grpc_url, long.id) == "cancelled"
    long.close()


def test_a_chunk_that_comes_twice_ends_its_own_session(server: Server) -> None:
    """Only the sender of a request can have its chunks, so that only that request can be ended by them."""
    honest = wire.Request(server.grpc_url, wire.question("Go on.", sampling=LONG))
    responses = iter(honest)
    next(responses)
    stage_1 = wire.Request(server.grpc_url, wire.question("Hi", sampling=SHORT), model="video_preprocess")
    header = next(iter(stage_1)).as_numpy("chunk_header")[0]
    own, again = tell_decoder(server, header), tell_decoder(server, header)
    with pytest.raises(wire.RequestError, match=r"invalid_argument: chunk 0 of session .* came twice"):
        list(again)
    for _ in range(3):
        assert next(responses).as_numpy("text_output") is not None
    for request in (own, stage_1, honest):
        request.close()


def first_header(server: Server) -> bytes:
    """The first chunk that stage 1 signs, for a request that is then left alone."""
    request = wire.Request(server.grpc_url, wire.question("Hi"), model="video_preprocess")
    try:
        return bytes(next(iter(request)).as_numpy("chunk_header")[0])
    finally:
        request.close()


def play_the_ensemble(server: Server, inputs: Any, parameters: Mapping[str, Any]) -> list[int]:
    """Brings stage 1's chunks to stage 3 with other features than stage 2's; the tokens of the answer."""
    client = triton.InferenceServerClient(server.grpc_url)
    told = []
    for chunk in wire.Request(server.grpc_url, inputs, model="video_preprocess", parameters=parameters):
        tensors = [wire.tensor(name, chunk.as_numpy(name)) for name in VISION_INPUTS]
        features = client.infer("vision_encoder", tensors).as_numpy("features")
        false = np.full_like(features, -3.0)
        header, token_ids, positions = (chunk.as_numpy(name) for name in ("chunk_header", "token_ids", "positions"))
        told.append(tell_decoder(server, header[0], token_ids=token_ids, positions=positions, features=false))
    usages = [usage for result in told[0] if (usage := result.as_numpy("usage")) is not None]
    for request in told:
        request.close()
    return list(json.loads(usages[-1][0])["token_ids"])


def tell_decoder(
    server: Server,
    chunk_header: bytes,
    *,
    token_ids: np.ndarray | None = None,
    positions: np.ndarray | None = None,
    features: np.ndarray | None = None,
) -> wire.Request:
    """Sends a chunk to stage 3, past the ensemble."""
    ids = np.zeros(0, np.int32) if token_ids is None else token_ids
    inputs = [
        wire.strings("chunk_header", [chunk_header]),
        wire.tensor("token_ids", ids),
        wire.tensor("positions", np.zeros((3, len(ids)), np.int32) if positions is None else positions),
        wire.tensor("features", np.zeros((0, 1, 256), np.float32) if features is None else features),
    ]
    return wire.Request(server.grpc_url, inputs, model="decoder", request_id="m" * 32)
