"""Decode steps for a GPU: one CUDA graph for each size of the batch, launched at once, not operation by operation."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import torch

from engines.pytorch.cache.block_tables import BlockTables
from engines.pytorch.cache.kv_cache import KVCache
from engines.pytorch.model.batch import Batch
from engines.pytorch.model.text_model import TextModel
from engines.pytorch.transfer import to_device
from engines.pytorch.work import Work

Compute = Callable[[], torch.Tensor]


class DecodeSteps:
    """Steps in which every sequence computes its newest token, in memory of their own that stays where it is.

    Sizes are powers of two. A smaller batch is filled up with its last sequence, which writes the same numbers to the
    same slot again. `record` makes what is called for a size from what computes it.
    """

    def __init__(
        self,
        model: TextModel,
        cache: KVCache,
        tables: BlockTables,
        device: torch.device,
        max_batch: int,
        record: Callable[[Compute], Compute],
    ) -> None:
        self._model = model
        self._cache = cache
        self._tables = tables
        self._device = device
        self._sizes = [1 << power for power in range((max_batch - 1).bit_length() + 1)]
        # What the steps read: before the first, one token that sees itself, in the cache's first slot.
        self._token_ids = torch.zeros(self._sizes[-1], dtype=torch.long, device=device)
        self._numbers = torch.ones((3, self._sizes[-1]), dtype=torch.long, device=device)
        self._numbers[0] = 0
        self._everyone = torch.arange(self._sizes[-1], device=device)
        # The largest first: the others fit into its memory.
        self._recorded = {size: record(self._step(size)) for size in reversed(self._sizes)}

    def __call__(self, work: Sequence[Work]) -> torch.Tensor:
        """Writes the keys and values of each one's newest token into the cache; returns logits [work, vocabulary] in
        float32, until the next call."""
        size = self._sizes[bisect_left(self._sizes, len(work))]
        sequences = [item.sequence for item in work]
        sequences += sequences[-1:] * (size - len(work))
        torch.cat([sequence.newest for sequence in sequences], out=self._token_ids[:size])
        numbers = torch.tensor([(s.row, s.cached + 1, s.newest_position) for s in sequences])
        self._numbers[:, :size] = to_device(numbers, self._device).T
        return self._recorded[size]()[: len(work)]

    def _step(self, size: int) -> Compute:
        rows, lengths, positions = self._numbers[:, :size]
        context = self._tables.context(rows, lengths)
        none = torch.empty(0, dtype=torch.long, device=self._device)

        def compute() -> torch.Tensor:
            batch = Batch(
                token_ids=self._token_ids[:size],
                positions=positions.expand(3, size),
                slots=context.slots,
                spans=(),
                decoding=context,
                visual=none,
                rows=none,
                yielding=self._everyone[:size],
            )
            return self._model(batch, self._cache)

        return compute


def cuda_graphs() -> Callable[[Compute], Compute]:
    """What records computations that start with the same tensors each time, one graph each, in one pool of memory: a
    graph's result is good until any of them is launched again."""
    pool = torch.cuda.graph_pool_handle()

    def record(compute: Compute) -> Compute:
        # Kernels are compiled and workspaces taken before, and not on the stream that the graph is recorded on.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            result = compute()

        def launch() -> torch.Tensor:
            graph.replay()
            return result

        return launch

    return record
