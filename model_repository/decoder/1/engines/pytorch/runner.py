"""The model on its device: the work of a step in, token ids out."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engines.checkpoint import ModelConfig
from engines.protocol import PromptPiece, Request
from engines.pytorch.cache.block_tables import BlockTables
from engines.pytorch.cache.kv_cache import KVCache
from engines.pytorch.cache.prefix_cache import Reservation
from engines.pytorch.decode_steps import DecodeSteps
from engines.pytorch.model.text_model import TextModel
from engines.pytorch.prompt import PromptSpan, to_span
from engines.pytorch.sampler import sample
from engines.pytorch.token_counts import TokenCounts
from engines.pytorch.transfer import HostCopy
from engines.pytorch.work import Work, build_batch


@dataclass(frozen=True)
class Step:
    """A step that was handed to the device."""

    work: list[Work]
    token_ids: torch.Tensor
    """int64 [work that yields a token], on the device."""
    known: HostCopy
    """The same on the host."""


class ModelRunner:
    """A model, its KV cache and its decode steps on one device."""

    def __init__(
        self,
        config: ModelConfig,
        model: TextModel,
        cache: KVCache,
        device: torch.device,
        dtype: torch.dtype,
        *,
        tables: BlockTables | None = None,
        decode_steps: DecodeSteps | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self.cache = cache
        self.tables = tables
        self._decode_steps = decode_steps
        self._device = device
        self._dtype = dtype

    def run(self, work: list[Work]) -> Step:
        """Has the device compute a step. Changes no sequence: a step that fails can be repeated."""
        if self._decode_steps and not any(item.prefill for item in work):
            logits = self._decode_steps(work)
        else:
            logits = self.model(build_batch(work, self._device, self.tables), self.cache)
        yielding = [item.sequence for item in work if item.yields_token]
        token_ids = sample(logits, yielding) if yielding else torch.empty(0, dtype=torch.long)
        return Step(work, token_ids, HostCopy(token_ids))

    def copy_held(self, reservation: Reservation) -> None:
        """Copies the held tokens that do not fill a block. Comes before the next reservation, which may evict them."""
        if reservation.source is not None:
            block, tokens = divmod(reservation.held_tokens, self.cache.block_size)
            self.cache.copy(reservation.source, reservation.blocks[block], tokens or self.cache.block_size)

    def to_span(self, piece: PromptPiece) -> PromptSpan:
        """A piece of a prompt as batches are built from it."""
        return to_span(piece, self.config.visual_token_ids, self._device, self._dtype)

    def token_counts(self, request: Request) -> TokenCounts | None:
        """Counts for the request's penalties, if it has any."""
        sampling, neutral = request.sampling, (1.0, 0.0, 0.0)
        if (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == neutral:
            return None
        return TokenCounts(request.token_ids, self.config.vocab_size, self._device)
