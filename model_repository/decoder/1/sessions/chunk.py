"""Chunks as stages 1 and 2 send them: a header and a piece of the prompt, checked before anything else sees them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines.checkpoint import ModelConfig
from engines.errors import CODES, RequestError, invalid_argument
from engines.protocol import PromptPiece, Request
from engines.sampling_parameters import SamplingParameters
from sessions.credits import SESSION_NAME

DIGEST = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Open:
    """The client's wishes, and whose cache it may use."""

    stream: bool
    progress: bool
    sampling_parameters: str
    cache_salt: str = ""


@dataclass(frozen=True)
class Plan:
    """The prompt that stage 1 is going to send."""

    prompt_tokens: int
    video_tokens: int
    next_position: int
    media: list[Any]
    """Passed on to the client."""
    digests: tuple[str, ...]
    """A name for what each temporal patch shows."""


@dataclass(frozen=True)
class Header:
    """A chunk's `chunk_header`."""

    session: str
    index: int | None
    """None for a heartbeat."""
    sent: float
    """Seconds of the system's monotonic clock."""
    open: Open | None
    plan: Plan | None
    begin: int
    """How many of the prompt's tokens lie before the chunk's."""
    last: bool
    seconds: Mapping[str, Any] | None
    """Stage 1's own times."""
    error: RequestError | None
    """Why stage 1 cannot go on; None when it can."""


@dataclass(frozen=True)
class Chunk:
    """A piece of a prompt, and its way here."""

    header: Header
    request_id: str
    token_ids: NDArray[np.int32]
    """[tokens]"""
    positions: NDArray[np.int32]
    """[3, tokens]"""
    features: torch.Tensor
    """float32 [frames, rows, hidden * (1 + levels)], on the device where stage 2 has left them."""
    encode_seconds: float
    """How long stage 2 worked on it."""
    arrived: float
    """Seconds of the system's monotonic clock."""
    cancelled: bool
    """The client had gone before the chunk was made."""


def parse_header(text: str) -> Header:
    """Raises invalid_argument naming the key that is wrong."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"chunk_header is not JSON: {error}") from None
    read = _Reader("chunk_header", header)
    session = read("session", str)
    if not SESSION_NAME.fullmatch(session):
        raise invalid_argument(f"chunk_header.session is {session!r}; 32 hexadecimal digits are accepted")
    return Header(
        session=session,
        index=None if header.get("index") is None else read.count("index"),
        sent=float(read("sent", int, float)),
        open=_parse_open(header["open"]) if "open" in header else None,
        plan=_parse_plan(header["plan"]) if "plan" in header else None,
        begin=read.count("begin") if "begin" in header else 0,
        last=read("last", bool) if "last" in header else False,
        seconds=read("seconds", dict) if "seconds" in header else None,
        error=_parse_error(read("error", str)) if "error" in header else None,
    )


def check_tokens(chunk: Chunk, config: ModelConfig) -> None:
    """Raises invalid_argument for token ids and positions that an engine could stumble over."""
    name, ids, positions = f"chunk {chunk.header.index}", chunk.token_ids, chunk.positions
    if ids.ndim != 1 or positions.shape != (3, len(ids)):
        raise invalid_argument(
            f"{name} has token_ids {list(ids.shape)} and positions {list(positions.shape)};"
            " [tokens] and [3, tokens] are accepted"
        )
    if len(ids) and not 0 <= ids.min() <= ids.max() < config.vocab_size:
        raise invalid_argument(
            f"{name} has token ids from {ids.min()} to {ids.max()}; 0 to {config.vocab_size - 1} are accepted"
        )
    if positions.size and positions.min() < 0:
        raise invalid_argument(f"{name} has the position {positions.min()}; positions from 0 on are accepted")


def prompt_piece(chunk: Chunk, config: ModelConfig) -> PromptPiece:
    """The chunk's part of the prompt. Raises invalid_argument for anything that an engine could stumble over."""
    check_tokens(chunk, config)
    name, ids, features = f"chunk {chunk.header.index}", chunk.token_ids, chunk.features
    if features.ndim != 3 or (features.numel() and features.shape[2] != config.row_width):
        raise invalid_argument(
            f"{name} has features {list(features.shape)}; [frames, rows, {config.row_width}] is accepted"
        )
    rows = features.reshape(-1, config.row_width)
    visual_tokens = int(np.isin(ids, config.visual_token_ids).sum())
    if visual_tokens != len(rows):
        raise invalid_argument(f"{name} has {visual_tokens} visual tokens and {len(rows)} rows of features")
    if not torch.isfinite(rows).all():
        # Not the caller's fault: stage 2 computed them.
        raise RequestError("internal", f"{name} has features that are not finite")
    return PromptPiece(chunk.header.begin, ids, chunk.positions, rows, chunk.header.last)


def planned_request(
    chunk: Chunk, plan: Plan, sampling: SamplingParameters, config: ModelConfig, cache_salt: str
) -> Request:
    """The request whose whole prompt chunk 1 tells. Raises invalid_argument where it and the plan do not agree."""
    check_tokens(chunk, config)
    ids = chunk.token_ids
    if len(ids) != plan.prompt_tokens:
        raise invalid_argument(f"chunk {chunk.header.index} has {len(ids)} tokens; planned are {plan.prompt_tokens}")
    visual = np.isin(ids, config.visual_token_ids)
    runs = int(visual[:1].sum()) + int((visual[1:] & ~visual[:-1]).sum())
    if len(plan.digests) != runs:
        raise invalid_argument(f"the plan has {len(plan.digests)} digests; the prompt has {runs} temporal patches")
    return Request(ids, chunk.positions, plan.digests, plan.next_position, sampling, cache_salt)


def _parse_error(text: str) -> RequestError:
    name, _, message = text.partition(": ")
    code = next((code for code in CODES if code == name), None)
    if code is None:
        raise invalid_argument(f"chunk_header.error is {text!r:.80}; a status code, a colon and a message are accepted")
    return RequestError(code, message)


def _parse_open(value: Any) -> Open:
    read = _Reader("chunk_header.open", value)
    return Open(read("stream", bool), read("progress", bool), read("sampling_parameters", str), read("cache_salt", str))


def _parse_plan(value: Any) -> Plan:
    read = _Reader("chunk_header.plan", value)
    return Plan(
        prompt_tokens=read.count("prompt_tokens", 1),
        video_tokens=read.count("video_tokens"),
        next_position=read.count("next_position"),
        media=read("media", list),
        digests=tuple(_digest(value) for value in read("digests", list)),
    )


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not DIGEST.fullmatch(value):
        raise invalid_argument(f"chunk_header.plan.digests has {value!r:.80}; 32 hexadecimal digits are accepted")
    return value


class _Reader:
    """Values of a JSON object by key and type."""

    def __init__(self, name: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise invalid_argument(f"{name} is {value!r:.80}; a JSON object is accepted")
        self._name = name
        self._value = value

    def __call__(self, key: str, *types: type) -> Any:
        value = self._value.get(key)
        if type(value) not in types:
            accepted = " or ".join(t.__name__ for t in types)
            raise invalid_argument(f"{self._name}.{key} is {value!r:.80}; {accepted} is accepted")
        return value

    def count(self, key: str, low: int = 0) -> int:
        value = self(key, int)
        if not low <= value < 2**31:
            raise invalid_argument(f"{self._name}.{key} is {value}; an integer from {low} to 2147483647 is accepted")
        return int(value)
