"""A double of TensorRT-LLM's interface, as strict as its sources are read to be.

It puts together again what it was handed and lets the PyTorch engine generate from it: what a test finds equal went
through every handle, hash and position. `install` makes it importable as `tensorrt_llm`, as one of three versions:

- `single`: 1.2, one embedding per request
- `handles`: 1.3 candidates, one handle per placeholder in a prompt that is tokenised again
- `layouts`: later ones, which take token ids and exact runs
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from engines.checkpoint import read_model_config
from engines.protocol import Admitted, Failed, PromptPiece, Request, Tokens
from engines.pytorch.factory import create_engine
from engines.response_format import ResponseFormat
from engines.sampling_parameters import SamplingParameters
from tests.support.harness import digests, make_settings

REFUSED_GRAMMAR = "sampling_parameters.response_format cannot be used:"
VERSIONS = {"single": "1.2.1", "handles": "1.3.0rc20", "layouts": "1.3.0rc29"}


class SharedTensorContainer:
    """Handles are one-shot, and the tensor behind one must be alive when it is read."""

    _segments: ClassVar[dict[int, weakref.ref[torch.Tensor]]] = {}
    _minted = 0

    def __init__(self, tensor: torch.Tensor) -> None:
        if not tensor.is_contiguous() or tensor.untyped_storage().nbytes() != tensor.nbytes:
            raise ValueError("the handle would share memory beyond the tensor's own")
        self._tensor = tensor

    @classmethod
    def from_tensor(cls, tensor: torch.Tensor) -> SharedTensorContainer:
        return cls(tensor)

    def dump_to_dict(self) -> dict[str, Any]:
        SharedTensorContainer._minted += 1
        number = SharedTensorContainer._minted
        SharedTensorContainer._segments[number] = weakref.ref(self._tensor)
        return {"method_key": 2, "tensor_size": list(self._tensor.shape), "storage_handle": number}

    @classmethod
    def restore(cls, handle: dict[str, Any]) -> torch.Tensor:
        reference = cls._segments.pop(handle["storage_handle"], None)
        if reference is None:
            raise RuntimeError(f"shared memory {handle['storage_handle']} was unlinked: a handle is read once")
        tensor = reference()
        if tensor is None:
            raise RuntimeError(f"shared memory {handle['storage_handle']} is gone: its tensor was not kept alive")
        return tensor.clone()


@dataclass(kw_only=True)
class DisaggPrefillMultimodalInputs:
    prompt_token_ids: list[int]
    multimodal_lengths: list[int]
    multimodal_positions: list[int]
    multimodal_embedding_lengths: list[int]
    multimodal_item_run_cu_offsets: list[int]
    multimodal_run_positions: list[int]
    multimodal_run_lengths: list[int]
    multimodal_embed_mask_cumsum: torch.Tensor


@dataclass(kw_only=True)
class DisaggregatedParams:
    request_type: str
    multimodal_embedding_handles: list[dict[str, Any]]
    multimodal_hashes: list[list[int]]
    mrope_position_ids_handle: dict[str, Any] | None = None
    mrope_position_deltas_handle: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        assert self.request_type == "context_and_generation", self.request_type
        assert len(self.multimodal_embedding_handles) == len(self.multimodal_hashes) > 0
        for numbers in self.multimodal_hashes:
            assert len(numbers) == 8
            assert all(type(number) is int and -(2**31) <= number < 2**31 for number in numbers)


@dataclass(kw_only=True)
class DisaggregatedParamsWithLayout(DisaggregatedParams):
    multimodal_layout: DisaggPrefillMultimodalInputs | None = None


@dataclass(kw_only=True)
class GuidedDecodingParams:
    json: str | None = None
    regex: str | None = None

    def ours(self) -> ResponseFormat:
        assert (self.json is None) != (self.regex is None), "only one guide can be used"
        return ResponseFormat("json_schema", self.json) if self.json else ResponseFormat("regex", self.regex or "")


@dataclass
class SamplingParams:
    end_id: int | None = None
    max_tokens: int = 32
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    temperature: float | None = None
    min_tokens: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    detokenize: bool = True
    add_special_tokens: bool = True
    guided_decoding: GuidedDecodingParams | None = None

    def __post_init__(self) -> None:
        assert self.end_id is not None, "it would be looked up in a tokenizer"
        assert self.top_k is None or self.top_k >= 0
        assert self.seed is None or 0 <= self.seed < 2**64

    def ours(self) -> SamplingParameters:
        """What these mean for the PyTorch engine."""
        greedy = self.top_k == 1 or self.temperature == 0
        stops = [self.end_id, *(self.stop_token_ids or [])]
        return SamplingParameters(
            max_tokens=self.max_tokens,
            min_tokens=self.min_tokens or 0,
            temperature=0.0 if greedy else 1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=0 if greedy or self.top_k is None else self.top_k,
            min_p=self.min_p or 0.0,
            seed=self.seed,
            stop_token_ids=tuple(i for i in stops if i is not None and i >= 0),
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            ignore_eos=True,
            response_format=None if self.guided_decoding is None else self.guided_decoding.ours(),
        )


class Result:
    """What `generate_async` returns: outputs as they come, each with all tokens so far."""

    def __init__(self, llm: LLM, session: str, begin: Callable[[], PromptPiece], *, strip_stop: bool) -> None:
        self._llm, self._session, self._begin, self._strip_stop = llm, session, begin, strip_stop
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._ids: list[int] = []
        self.aborted = False

    def hear(self, event: Any) -> None:
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def abort(self) -> None:
        self.aborted = True
        self._llm.engine.cancel(self._session)
        self.hear("aborted")

    async def __aiter__(self) -> Any:
        reason = None
        await asyncio.sleep(0.01)
        if not self.aborted:
            piece = self._begin()
        while reason is None:
            match await self._events.get():
                case Admitted():
                    self._llm.engine.feed(self._session, piece)
                    continue
                case Tokens(ids, finish_reason):
                    self._ids += ids
                    reason = finish_reason or None
                    if reason == "stop" and self._strip_stop:
                        self._ids.pop()
                case Failed(_, message):
                    # As its executor says that a grammar does not compile.
                    raise RuntimeError(message.replace(REFUSED_GRAMMAR, "Guided decoding error:"))
                case "aborted":
                    reason = "cancelled"
                case _:
                    continue
            completion = types.SimpleNamespace(token_ids=list(self._ids), finish_reason=reason)
            yield types.SimpleNamespace(outputs=[completion])


class LLM:
    """Generates with the PyTorch engine, one session per request."""

    last: ClassVar[LLM]
    # Whether the token that ends an answer is missing from what is returned; the sources leave it open.
    strip_stop = False

    def __init__(
        self,
        *,
        model: str,
        max_batch_size: int,
        max_num_tokens: int,
        max_seq_len: int,
        enable_chunked_prefill: bool,
        kv_cache_config: dict[str, Any],
        scheduler_config: dict[str, Any],
        cuda_graph_config: dict[str, Any],
        guided_decoding_backend: str,
        disable_mm_encoder: bool = False,
    ) -> None:
        assert enable_chunked_prefill, "a prompt longer than max_num_tokens would be refused"
        assert set(kv_cache_config) == {"max_tokens", "dtype", "enable_block_reuse", "tokens_per_block"}
        assert scheduler_config == {"capacity_scheduler_policy": "GUARANTEED_NO_EVICT"}
        assert guided_decoding_backend in ("xgrammar", "llguidance")
        assert set(cuda_graph_config) == {"batch_sizes", "enable_padding"}
        settings = make_settings(Path(model), kv_cache_tokens=kv_cache_config["max_tokens"])
        self.config = read_model_config(Path(model))
        self.tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
        self.encoder_disabled = disable_mm_encoder
        self.results: dict[str, Result] = {}
        self.requests: list[DisaggregatedParams | None] = []
        self.salts: list[str | None] = []
        self.reuses_blocks = kv_cache_config["enable_block_reuse"]
        self.engine = create_engine(settings, lambda session, event: self.results[session].hear(event))
        self.max_seq_len = max_seq_len
        self.shut_down = False
        LLM.last = self

    def generate_async(
        self,
        inputs: dict[str, Any],
        sampling_params: SamplingParams,
        *,
        disaggregated_params: DisaggregatedParams | None,
        streaming: bool,
        cache_salt: str | None = None,
    ) -> Result:
        assert streaming
        assert cache_salt != "", "an empty salt is one of its own"
        self.requests.append(disaggregated_params)
        self.salts.append(cache_salt)
        session = f"request {len(self.results)}"
        token_ids = self._token_ids(inputs, disaggregated_params)
        assert len(token_ids) + sampling_params.max_tokens <= self.max_seq_len

        def begin() -> PromptPiece:
            """In the worker, some time later: handles are read here."""
            tokens, positions, next_position = len(token_ids), np.arange(len(token_ids), dtype=np.int32), len(token_ids)
            rows, positions = np.zeros((0, self.config.row_width), np.float32), np.tile(positions, (3, 1))
            if disaggregated_params is not None:
                handles = disaggregated_params.multimodal_embedding_handles
                rows = torch.cat([SharedTensorContainer.restore(handle) for handle in handles]).float().numpy()
                positions, next_position = self._positions(disaggregated_params, tokens)
            shown = digests(np.isin(token_ids, self.config.visual_token_ids), rows)
            asked = Request(token_ids, positions, shown, next_position, sampling_params.ours(), cache_salt or "")
            self.engine.open(session, asked)
            return PromptPiece(0, token_ids, positions, torch.from_numpy(rows), last=True)

        self.results[session] = Result(self, session, begin, strip_stop=self.strip_stop)
        return self.results[session]

    def shutdown(self) -> None:
        self.engine.close()
        self.shut_down = True

    def _token_ids(self, inputs: dict[str, Any], parameters: DisaggregatedParams | None) -> np.ndarray:
        if parameters is None:
            return np.array(inputs["prompt_token_ids"], np.int32)
        handles = parameters.multimodal_embedding_handles
        for number, handle in enumerate(handles):
            if handle["tensor_size"][1] != self.config.row_width:
                raise RuntimeError(
                    f"Expected multimodal embedding {number} to have hidden size {self.config.row_width},"
                    f" got {handle['tensor_size'][1]}."
                )
        layout = getattr(parameters, "multimodal_layout", None)
        lengths = [handle["tensor_size"][0] for handle in handles]
        return self._expand(inputs["prompt"], lengths) if layout is None else self._check_layout(layout, lengths)

    def _expand(self, text: str, lengths: list[int]) -> np.ndarray:
        collapsed = self.tokenizer.encode(text, add_special_tokens=False).ids
        places = sum(token in self.config.visual_token_ids for token in collapsed)
        if places != len(lengths):
            raise ValueError(
                "Number of multimodal placeholders must match number of mm_handles: "
                f"placeholders={places}, mm_handles={len(lengths)}"
            )
        remaining: Iterator[int] = iter(lengths)
        expanded = [
            repeated
            for token in collapsed
            for repeated in [token] * (next(remaining) if token in self.config.visual_token_ids else 1)
        ]
        return np.array(expanded, np.int32)

    def _check_layout(self, layout: DisaggPrefillMultimodalInputs, lengths: list[int]) -> np.ndarray:
        token_ids = np.array(layout.prompt_token_ids, np.int32)
        visual = np.isin(token_ids, self.config.visual_token_ids)
        assert layout.multimodal_embedding_lengths == layout.multimodal_lengths == lengths
        in_runs = np.zeros(len(token_ids), bool)
        for begin, length in zip(layout.multimodal_run_positions, layout.multimodal_run_lengths, strict=True):
            assert not in_runs[begin : begin + length].any()
            in_runs[begin : begin + length] = True
        np.testing.assert_array_equal(in_runs, visual)
        offsets = layout.multimodal_item_run_cu_offsets
        assert (offsets[0], offsets[-1]) == (0, len(layout.multimodal_run_positions))
        for item, (first, last) in enumerate(itertools.pairwise(offsets)):
            assert layout.multimodal_positions[item] == layout.multimodal_run_positions[first]
            assert sum(layout.multimodal_run_lengths[first:last]) == lengths[item]
        assert layout.multimodal_embed_mask_cumsum.dtype == torch.int64
        assert layout.multimodal_embed_mask_cumsum.tolist() == visual.cumsum().tolist()
        return token_ids

    def _positions(self, parameters: DisaggregatedParams, tokens: int) -> tuple[np.ndarray, int]:
        if parameters.mrope_position_ids_handle is None or parameters.mrope_position_deltas_handle is None:
            raise ValueError("M-RoPE position ids and deltas are needed")
        ids = SharedTensorContainer.restore(parameters.mrope_position_ids_handle)
        delta = SharedTensorContainer.restore(parameters.mrope_position_deltas_handle)
        assert (ids.dtype, tuple(ids.shape)) == (torch.int32, (3, 1, tokens))
        assert tuple(delta.shape) == (1,)
        return ids[:, 0].numpy(), tokens + int(delta)


class UnsaltedLLM(LLM):
    """As versions before 1.1 are, which know no owners."""

    def generate_async(  # type: ignore[override]
        self,
        inputs: dict[str, Any],
        sampling_params: SamplingParams,
        *,
        disaggregated_params: DisaggregatedParams | None,
        streaming: bool,
    ) -> Result:
        return super().generate_async(
            inputs, sampling_params, disaggregated_params=disaggregated_params, streaming=streaming
        )


def install(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Make the double importable as `tensorrt_llm` while a test runs."""
    parameters = DisaggregatedParamsWithLayout if kind == "layouts" else DisaggregatedParams
    arguments = {"disable_mm_encoder": None} if kind == "layouts" else {}
    contents: dict[str, dict[str, Any]] = {
        "tensorrt_llm": {"__version__": VERSIONS[kind], "LLM": LLM, "SamplingParams": SamplingParams},
        "tensorrt_llm.disaggregated_params": {"DisaggregatedParams": parameters},
        "tensorrt_llm.inputs": {},
        "tensorrt_llm.inputs.multimodal": (
            {} if kind == "single" else {"DisaggPrefillMultimodalInputs": DisaggPrefillMultimodalInputs}
        ),
        "tensorrt_llm.llmapi": {"GuidedDecodingParams": GuidedDecodingParams},
        "tensorrt_llm.llmapi.llm_args": {"TorchLlmArgs": types.SimpleNamespace(model_fields=arguments)},
        "tensorrt_llm._torch": {},
        "tensorrt_llm._torch.shared_tensor": {"SharedTensorContainer": SharedTensorContainer},
    }
    modules = {name: types.ModuleType(name) for name in contents}
    for name, module in modules.items():
        module.__dict__.update(contents[name])
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
        monkeypatch.setitem(sys.modules, name, module)
