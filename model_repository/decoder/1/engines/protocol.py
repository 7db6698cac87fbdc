"""What sessions and engines say to each other.

A session is opened with its request, fed with pieces of its prompt in order, and answered by events. What `Admitted`
says to be held already need not be fed. An engine reports events from a thread of its own and must not be kept waiting
there. After `Failed`, after `Tokens` with a finish reason, and after `cancel`, the engine has forgotten the session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from engines.errors import Code
from engines.sampling_parameters import SamplingParameters


@dataclass(frozen=True)
class Request:
    """What an engine must know before the prompt is fed: what it says and shows, and how to generate.

    token_ids: int32 [tokens]
    positions: int32 [3, tokens], M-RoPE: time, row, column
    digests: a name for what each temporal patch shows, 32 hexadecimal digits; in the order of the prompt's runs of
        visual tokens
    next_position: M-RoPE position of the first generated token, the same on all three axes.
    cache_salt: whose request it is; what was computed for one owner is never used for another
    """

    token_ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    digests: tuple[str, ...]
    next_position: int
    sampling: SamplingParameters
    cache_salt: str = ""

    @property
    def prompt_tokens(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True)
class PromptPiece:
    """The next tokens of a prompt. The engine keeps them: nobody may write to them any more.

    begin: how many of the prompt's tokens lie before it
    token_ids: int32 [tokens]
    positions: int32 [3, tokens], M-RoPE: time, row, column
    rows: float32 [visual tokens, hidden * (1 + levels)], packed [merged | deepstack_0 | …], one per visual token; on
        any device
    last: nothing follows
    """

    begin: int
    token_ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    rows: torch.Tensor
    last: bool


@dataclass(frozen=True)
class Waiting:
    """Memory is taken: the session has this place in the queue, 1 being the next."""

    place: int


@dataclass(frozen=True)
class Admitted:
    """Memory for prompt and answer is reserved: pieces are worked on from now on.

    held_tokens: how many of the prompt's first tokens are in the KV cache already, fewer than it has.
    """

    held_tokens: int = 0


@dataclass(frozen=True)
class Prefilled:
    """`tokens` more tokens of the prompt are in the KV cache."""

    tokens: int


@dataclass(frozen=True)
class Tokens:
    """Generated token ids. With the finish reason `stop` the last one is a stop token and no part of the text."""

    ids: tuple[int, ...]
    finish_reason: Literal["", "stop", "length"] = ""


@dataclass(frozen=True)
class Failed:
    """The session ended by an error."""

    code: Code
    message: str


Event: TypeAlias = Waiting | Admitted | Prefilled | Tokens | Failed
Listener: TypeAlias = Callable[[str, Event], None]


@dataclass(frozen=True)
class EngineState:
    """Blocks of the KV cache, sessions that hold some, and sessions that wait for some.

    blocks_free: not held by a session, blocks_cached among them: these have content that a later prompt may begin with.
    """

    blocks_total: int
    blocks_free: int
    blocks_cached: int
    sessions: int
    waiting: int


class Engine(Protocol):
    """Generates for many sessions at once. All methods return at once and may be called from any thread."""

    def open(self, session: str, request: Request) -> None:
        """Begins a session. Raises RequestError when it can never fit or too many are waiting."""

    def feed(self, session: str, piece: PromptPiece) -> None:
        """Hands over the next piece; an unknown session is ignored, because it may just have failed."""

    def cancel(self, session: str) -> None:
        """Forgets a session; no event follows. An unknown one is ignored."""

    def state(self) -> EngineState:
        """A consistent view of the engine."""

    def close(self) -> None:
        """Ends the engine's threads and forgets every session."""
