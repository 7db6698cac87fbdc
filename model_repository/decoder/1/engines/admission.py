"""Which requests an engine takes: how long their answers may be, who waits for the KV cache, and who is refused."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from engines.checkpoint import ModelConfig
from engines.errors import invalid_argument
from engines.fair_queue import FairQueue
from engines.protocol import Listener, Request, Waiting
from engines.settings import Settings


class Entrant(Hashable, Protocol):
    """One session as an engine keeps it."""

    @property
    def session(self) -> str: ...

    @property
    def owner(self) -> str: ...

    @property
    def reserved_tokens(self) -> int:
        """The room in the KV cache that it needs for its whole prompt and answer."""


Item = TypeVar("Item", bound=Entrant)


@dataclass(frozen=True)
class StopConditions:
    """When an answer ends."""

    max_tokens: int
    """The request's own, cut to the room that the context and the KV cache have."""
    token_ids: tuple[int, ...]
    """The checkpoint's own first."""


class Admission(Generic[Item]):
    """The sessions that are open, and the queue in which some of them wait.

    Not thread-safe: the engine's lock guards it, except for `stop_conditions`.
    """

    def __init__(
        self,
        settings: Settings,
        config: ModelConfig,
        eos_token_ids: tuple[int, ...],
        listener: Listener,
        *,
        context_length: int,
        blocks: int,
        caches_last_token: bool,
    ) -> None:
        """caches_last_token: whether the last token of an answer takes room in the KV cache too."""
        self.queue: FairQueue[Item] = FairQueue(
            places=settings.max_batch, blocks=blocks, owner_share=settings.owner_share, max_waiting=settings.max_waiting
        )
        self.sessions: dict[str, Item] = {}
        self._vocab_size = config.vocab_size
        self._eos_token_ids = eos_token_ids
        self._listener = listener
        self._context_length = context_length
        self._cache_tokens = blocks * settings.block_size
        self._longest = min(context_length, self._cache_tokens + (0 if caches_last_token else 1))
        self._told: dict[Item, int] = {}

    def stop_conditions(self, request: Request) -> StopConditions:
        """Raises invalid_argument for a prompt that can never fit."""
        room = self._longest - request.prompt_tokens
        if room < 1:
            raise invalid_argument(
                f"the prompt has {request.prompt_tokens} tokens and needs room for an answer; the context holds"
                f" {self._context_length} tokens and the KV cache {self._cache_tokens}"
            )
        sampling = request.sampling
        eos = () if sampling.ignore_eos else self._eos_token_ids
        own = (token for token in sampling.stop_token_ids if token < self._vocab_size)
        return StopConditions(min(sampling.max_tokens, room), tuple(dict.fromkeys((*eos, *own))))

    def enter(self, item: Item, admit: Callable[[], None]) -> None:
        """Opens a session, which waits unless `admit`, which admits every session that there is room for, admits it.

        Raises invalid_argument where it is open already and resource_exhausted where the queue is full.
        """
        if item.session in self.sessions:
            raise invalid_argument(f"session {item.session} is open already")
        self.queue.add(item, item.owner)
        admit()
        refusal = self.queue.refusal(item)
        if refusal is None:
            self.sessions[item.session] = item
        else:
            self.queue.withdraw(item)
        self.tell_places()
        if refusal is not None:
            raise refusal

    def tell_places(self) -> None:
        """Reports their places to the sessions whose places in the queue have changed; 1 is the next."""
        places = {item: place for place, item in enumerate(self.queue.order(), start=1)}
        for item, place in places.items():
            if self._told.get(item) != place:
                self._listener(item.session, Waiting(place))
        self._told = places
