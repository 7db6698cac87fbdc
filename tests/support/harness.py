"""Prompts with pictures as the stages before hand them over, and engines that a test can wait for."""

from __future__ import annotations

import functools
import hashlib
import itertools
import queue
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from engines.create import create_engine
from engines.protocol import Admitted, Engine, Event, Failed, Prefilled, PromptPiece, Request, Tokens, Waiting
from engines.sampling_parameters import SamplingParameters
from engines.settings import Settings
from tests.support import reference


@dataclass(frozen=True)
class Prompt:
    """A prompt as stage 1 and 2 hand it over, and its greedy continuation according to transformers.

    token_ids: int32 [tokens]; positions: int32 [3, tokens]; rows: float32 [visual tokens, width]
    """

    token_ids: np.ndarray
    positions: np.ndarray
    rows: np.ndarray
    is_visual: np.ndarray
    greedy: tuple[int, ...] = ()

    @property
    def next_position(self) -> int:
        return int(self.positions.max()) + 1

    def request(self, sampling: SamplingParameters, cache_salt: str = "") -> Request:
        return Request(self.token_ids, self.positions, self.digests, self.next_position, sampling, cache_salt)

    @property
    def digests(self) -> tuple[str, ...]:
        return digests(self.is_visual, self.rows)

    def pieces(self, *cuts: int) -> list[PromptPiece]:
        """The prompt cut before the tokens `cuts`."""
        borders = [0, *cuts, len(self.token_ids)]
        return [self._piece(begin, end) for begin, end in itertools.pairwise(borders)]

    def _piece(self, begin: int, end: int) -> PromptPiece:
        rows = slice(int(self.is_visual[:begin].sum()), int(self.is_visual[:end].sum()))
        return PromptPiece(
            begin,
            self.token_ids[begin:end],
            self.positions[:, begin:end],
            torch.from_numpy(self.rows[rows]),
            end == len(self.token_ids),
        )


def digests(is_visual: np.ndarray, rows: np.ndarray) -> tuple[str, ...]:
    """A name for what each run of visual tokens shows, from the rows themselves."""
    starts = np.flatnonzero(np.diff(is_visual, prepend=False) & is_visual)
    shown = np.split(rows, np.cumsum(is_visual)[starts][1:] - 1) if len(starts) else []
    return tuple(hashlib.sha256(run.tobytes()).hexdigest()[:32] for run in shown)


@functools.cache
def make_prompt(checkpoint: Path, seed: int, *, frames: int = 6, words: int = 12, greedy_tokens: int = 0) -> Prompt:
    """A random question about a random video of `frames` frames; 0 frames make a text-only prompt."""
    random = np.random.default_rng(seed)
    content: list[dict[str, object]] = []
    videos = []
    if frames:
        content.append({"type": "video", "video": "random"})
        size = (frames, 64, 96, 3)
        videos.append(reference.ReferenceVideo(random.integers(0, 256, size, dtype=np.uint8), range(frames), 1))
    text = " ".join("".join(chr(c) for c in random.integers(97, 123, 4)) for _ in range(words))
    content.append({"type": "text", "text": text})
    prompt = reference.process(checkpoint, [{"role": "user", "content": content}], videos)
    config = reference.load_model(checkpoint).config
    return Prompt(
        prompt.token_ids.astype(np.int32),
        prompt.positions.astype(np.int32),
        reference.features(checkpoint, prompt).astype(np.float32),
        np.isin(prompt.token_ids, [config.image_token_id, config.video_token_id]),
        tuple(reference.generate(checkpoint, prompt, greedy_tokens)) if greedy_tokens else (),
    )


@dataclass
class Answer:
    """The engine's reports about one session."""

    places: list[int] = field(default_factory=list)
    admitted: bool = False
    held: int = 0
    prefilled: int = 0
    ids: list[int] = field(default_factory=list)
    finish_reason: str = ""
    error: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    def __call__(self, event: Event) -> None:
        match event:
            case Waiting(place):
                self.places.append(place)
            case Admitted(held_tokens):
                self.admitted = True
                self.held = held_tokens
            case Prefilled(tokens):
                self.prefilled += tokens
            case Tokens(ids, finish_reason):
                self.ids += ids
                self.finish_reason = finish_reason
            case Failed(code, message):
                self.error = f"{code}: {message}"
        if self.finish_reason or self.error:
            self.over.set()


class Harness:
    """The engine that the settings name, and the answers of its sessions."""

    def __init__(self, settings: Settings) -> None:
        self.answers: dict[str, Answer] = {}
        self.events: queue.SimpleQueue[tuple[str, Event]] = queue.SimpleQueue()
        self.engine: Engine = create_engine(settings, self._hear)

    def _hear(self, session: str, event: Event) -> None:
        self.events.put((session, event))
        self.answers[session](event)

    def open(self, session: str, prompt: Prompt, sampling: SamplingParameters, cache_salt: str = "") -> Answer:
        answer = self.answers[session] = Answer()
        self.engine.open(session, prompt.request(sampling, cache_salt))
        return answer

    def start(
        self, session: str, prompt: Prompt, sampling: SamplingParameters, *cuts: int, cache_salt: str = ""
    ) -> Answer:
        answer = self.open(session, prompt, sampling, cache_salt)
        for piece in prompt.pieces(*cuts):
            self.engine.feed(session, piece)
        return answer

    def ask(self, prompt: Prompt, sampling: SamplingParameters, *cuts: int, cache_salt: str = "") -> Answer:
        answer = self.start("alone", prompt, sampling, *cuts, cache_salt=cache_salt)
        assert answer.over.wait(60), "the engine did not finish"
        return answer

    def wait_until_free(self) -> None:
        """Returns when all blocks are back; fails when they do not come."""
        waited = threading.Event()
        for _ in range(1000):
            state = self.engine.state()
            if (state.blocks_free, state.sessions, state.waiting) == (state.blocks_total, 0, 0):
                return
            waited.wait(0.01)
        raise AssertionError(f"the blocks did not come back: {self.engine.state()}")


def make_settings(checkpoint: Path, **changes: object) -> Settings:
    """Settings as in config.pbtxt, small enough for tests."""
    settings = Settings(
        checkpoint=checkpoint,
        engine="pytorch",
        device="cpu",
        dtype="float32",
        weights="auto",
        yarn_factor=None,
        kv_cache_dtype="auto",
        kv_cache_tokens=4096,
        block_size=16,
        prefix_cache=True,
        decode_graphs=True,
        context_length=None,
        max_step_tokens=1024,
        max_batch=64,
        owner_share=0.5,
        max_waiting=256,
        chunks_in_flight=4,
        credits_directory=Path("/nonexistent"),
        silence_seconds=60.0,
        default_max_tokens=512,
        max_generation_seconds=600.0,
        threads=0,
    )
    return replace(settings, **changes)  # type: ignore[arg-type]


def greedy(max_tokens: int, **changes: object) -> SamplingParameters:
    """Greedy decoding that only ends at `max_tokens`."""
    return replace(SamplingParameters(max_tokens=max_tokens, ignore_eos=True), **changes)  # type: ignore[arg-type]
