"""Headers and chunks are checked before anything else sees them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engines.checkpoint import ModelConfig, read_model_config
from engines.errors import RequestError
from engines.protocol import PromptPiece
from engines.sampling_parameters import SamplingParameters
from sessions.chunk import Chunk, Header, Open, Plan, parse_header, planned_request, prompt_piece
from sessions.intake import Intake
from sessions.ordering import InOrder

NAME = "0123456789abcdef" * 2
HEADER = Header(NAME, 2, 1.0, None, None, 0, False, None, None)


@pytest.fixture(scope="module")
def config(checkpoint: Path) -> ModelConfig:
    return read_model_config(checkpoint)


def chunk(config: ModelConfig, **changes: Any) -> Chunk:
    """Three tokens, the second visual."""
    made = Chunk(
        header=HEADER,
        request_id="r",
        token_ids=np.array([1, config.visual_token_ids[1], 2], np.int32),
        positions=np.zeros((3, 3), np.int32),
        features=torch.ones(1, 1, config.row_width),
        encode_seconds=0.0,
        arrived=2.0,
        cancelled=False,
    )
    return replace(made, **changes)


def test_headers_are_read() -> None:
    opened = {"session": NAME, "index": 0, "sent": 3, "open": {"stream": True, "progress": False}}
    opened["open"] |= {"sampling_parameters": "{}", "cache_salt": "s"}  # type: ignore[operator]
    read = Header(NAME, 0, 3.0, Open(True, False, "{}", "s"), None, 0, False, None, None)
    assert parse_header(json.dumps(opened)) == read
    plan = {"prompt_tokens": 9, "video_tokens": 4, "next_position": 7, "media": [{"kind": "video"}], "digests": [NAME]}
    planned = json.dumps({"session": NAME, "index": 1, "sent": 3.5, "plan": plan})
    assert parse_header(planned).plan == Plan(9, 4, 7, [{"kind": "video"}], (NAME,))
    last = parse_header(
        json.dumps({"session": NAME, "index": 5, "sent": 1, "begin": 7, "last": True, "seconds": {"plan": 1}})
    )
    assert (last.begin, last.last, last.seconds) == (7, True, {"plan": 1})
    assert parse_header(json.dumps({"session": NAME, "index": None, "sent": 1})).index is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "chunk_header is not JSON"),
        ("[]", r"chunk_header is \[\]; a JSON object"),
        ('{"session": "../../etc/passwd"}', "chunk_header.session is '../../etc/passwd'; 32 hexadecimal digits"),
        (f'{{"session": "{NAME}0"}}', "32 hexadecimal digits"),
        (f'{{"session": "{NAME}", "index": -1}}', "chunk_header.index is -1; an integer from 0"),
        (f'{{"session": "{NAME}", "index": true}}', "chunk_header.index is True; int is accepted"),
        (f'{{"session": "{NAME}", "index": 0, "sent": "now"}}', "chunk_header.sent is 'now'; int or float"),
        (f'{{"session": "{NAME}", "index": 0, "sent": 1, "open": 1}}', "chunk_header.open is 1; a JSON object"),
        (f'{{"session": "{NAME}", "index": 1, "sent": 1, "plan": {{}}}}', "chunk_header.plan.prompt_tokens is None"),
        (f'{{"session": "{NAME}", "sent": 1, "error": "late: x"}}', "chunk_header.error is 'late: x'; a status code"),
    ],
)
def test_wrong_headers_are_told_by_key(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse_header(text)


def test_an_error_of_stage_1_is_passed_on_letter_for_letter() -> None:
    error = parse_header(f'{{"session": "{NAME}", "sent": 1, "error": "not_found: a.mp4: no such file"}}').error
    assert error is not None
    assert (error.code, str(error)) == ("not_found", "not_found: a.mp4: no such file")


def test_a_chunk_is_a_piece_of_the_prompt(config: ModelConfig) -> None:
    piece = prompt_piece(chunk(config), config)
    assert piece.rows.shape == (1, config.row_width)
    empty = chunk(
        config,
        token_ids=np.array([1], np.int32),
        positions=np.zeros((3, 1), np.int32),
        features=torch.zeros(0, 1, 8),
    )
    assert prompt_piece(empty, config).rows.shape == (0, config.row_width)


def test_what_an_engine_could_stumble_over_is_refused(config: ModelConfig) -> None:
    width, vocabulary = config.row_width, config.vocab_size
    wrong = [
        (
            {"token_ids": np.array([1, 2, vocabulary], np.int32)},
            f"ids from 1 to {vocabulary}; 0 to {vocabulary - 1} are",
        ),
        ({"token_ids": np.array([1, 2, -1], np.int32)}, "token ids from -1 to 2"),
        ({"positions": np.zeros((3, 2), np.int32)}, r"positions \[3, 2\]"),
        ({"positions": np.full((3, 3), -4, np.int32)}, "the position -4"),
        ({"features": torch.ones(1, 1, width - 1)}, rf"features \[1, 1, {width - 1}\]; .* {width}\] is"),
        ({"features": torch.ones(1, 2, width)}, "1 visual tokens and 2 rows"),
        ({"features": torch.zeros(0, 1, width)}, "1 visual tokens and 0 rows"),
        (
            {"features": torch.full((1, 1, width), torch.nan)},
            "internal: chunk 2 has features that are not finite",
        ),
    ]
    for changes, message in wrong:
        with pytest.raises(RequestError, match=message):
            prompt_piece(chunk(config, **changes), config)


@given(st.permutations(range(8)), st.integers(1, 8))
def test_order_is_restored_within_the_window(order: list[int], window: int) -> None:
    ordered: InOrder[int] = InOrder(window)
    out: list[int] = []
    for index in order:
        if index > len(out) + window:
            with pytest.raises(RequestError, match=f"chunk {index} came while chunk {len(out)} is missing"):
                ordered.put(index, index)
            return
        out += ordered.put(index, index)
        with pytest.raises(RequestError, match=f"chunk {index} came twice"):
            ordered.put(index, index)
    assert out == list(range(8))


def intake(piece: PromptPiece, planned: int) -> Intake:
    """Of a prompt that says the same over and over."""
    return Intake(Plan(planned, 1, 6, [], (NAME,)), np.resize(piece.token_ids, planned))


def test_chunks_that_do_not_agree_with_the_plan_are_refused(config: ModelConfig) -> None:
    piece = prompt_piece(chunk(config), config)
    with pytest.raises(RequestError, match="the prompt has 3 tokens with chunk 2; planned are 5"):
        intake(piece, 5).add(replace(piece, last=True), 2)
    with pytest.raises(RequestError, match="the prompt has 3 tokens with chunk 2; planned are 2"):
        intake(piece, 2).add(piece, 2)
    with pytest.raises(RequestError, match="chunk 2 has other tokens than were planned"):
        intake(piece, 6).add(replace(piece, token_ids=piece.token_ids + 1), 2)
    taken = intake(piece, 6)
    taken.add(piece, 2)
    for begin in (0, 2, 4):
        with pytest.raises(RequestError, match=f"chunk 3 begins at token {begin}; token 3 is next"):
            taken.add(replace(piece, begin=begin), 3)
    taken.add(replace(piece, begin=3, last=True), 3)
    with pytest.raises(RequestError, match="chunk 4 came after the last one"):
        taken.add(piece, 4)


def test_what_is_held_need_not_come(config: ModelConfig) -> None:
    piece = prompt_piece(chunk(config), config)
    for begin in (3, 6):
        taken = intake(piece, 9)
        taken.admit(6)
        rest = replace(piece, begin=begin, token_ids=np.resize(piece.token_ids, 9 - begin), last=True)
        taken.add(rest, 2)
        taken.prefilled_tokens += 3
        assert taken.credits_due() == 1
    taken = intake(piece, 9)
    taken.admit(6)
    with pytest.raises(RequestError, match="chunk 2 begins at token 7; token 6 is next"):
        taken.add(replace(piece, begin=7), 2)


def test_a_plan_without_its_prompt_is_refused(config: ModelConfig) -> None:
    told, sampling = chunk(config), SamplingParameters(max_tokens=1)
    plan = Plan(3, 1, 6, [], (NAME,))
    assert planned_request(told, plan, sampling, config, "").prompt_tokens == 3
    assert planned_request(told, plan, sampling, config, "s").cache_salt == "s"
    with pytest.raises(RequestError, match="chunk 2 has 3 tokens; planned are 4"):
        planned_request(told, replace(plan, prompt_tokens=4), sampling, config, "")
    with pytest.raises(RequestError, match="the plan has 2 digests; the prompt has 1 temporal patches"):
        planned_request(told, replace(plan, digests=(NAME, NAME)), sampling, config, "")
    header = {"session": NAME, "index": 1, "sent": 1, "plan": {"prompt_tokens": 3, "video_tokens": 1}}
    header["plan"] |= {"next_position": 3, "media": [], "digests": ["a b"]}  # type: ignore[operator]
    with pytest.raises(RequestError, match="digests has 'a b'; 32 hexadecimal digits are accepted"):
        parse_header(json.dumps(header))


def test_a_credit_is_due_when_a_whole_chunk_is_consumed(config: ModelConfig) -> None:
    piece = prompt_piece(chunk(config), config)
    taken = intake(piece, 9)
    taken.add(piece, 2)
    taken.add(replace(piece, begin=3), 3)
    due = []
    for prefilled in (2, 3, 5, 6):
        taken.prefilled_tokens = prefilled
        due.append(taken.credits_due())
    assert due == [0, 1, 0, 1]
