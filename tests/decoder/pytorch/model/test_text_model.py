"""The decoder's numbers against transformers'."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from build.assemble.checkpoint_factory import SHAPES, make_checkpoint
from engines.checkpoint import MODEL_TYPES, read_model_config
from engines.pytorch.cache.block_keys import BlockKeys
from engines.pytorch.cache.kv_cache import KVCache
from engines.pytorch.cache.layer_cache import FloatLayerCache
from engines.pytorch.cache.placement import Context
from engines.pytorch.cache.prefix_cache import Reservation
from engines.pytorch.model.attention import PagedAttention
from engines.pytorch.model.batch import Batch, Span
from engines.pytorch.model.registry import ARCHITECTURES, load_weights
from engines.pytorch.model.rotary import RotaryEmbedding
from engines.pytorch.model.text_model import TextModel
from engines.pytorch.prompt import to_span
from engines.pytorch.sequence import Sequence
from engines.pytorch.work import Work, build_batch
from engines.sampling_parameters import SamplingParameters
from tests.support import reference
from tests.support.harness import Prompt, make_prompt

CPU = torch.device("cpu")
BLOCK_SIZE = 8


def sequence_of(checkpoint: Path, prompt: Prompt, blocks: tuple[int, ...], cuts: tuple[int, ...] = ()) -> Sequence:
    config = read_model_config(checkpoint)
    request = prompt.request(SamplingParameters(max_tokens=4))
    sequence = Sequence(
        "s",
        request,
        max_tokens=4,
        stop_token_ids=frozenset(),
        counts=None,
        block_keys=BlockKeys(request, config.visual_token_ids, 4, BLOCK_SIZE),
    )
    for piece in prompt.pieces(*cuts):
        sequence.prompt.append(to_span(piece, config.visual_token_ids, CPU, torch.float32), piece.begin)
    sequence.reserve(Reservation(blocks, 0, None), BLOCK_SIZE, CPU)
    return sequence


@torch.inference_mode()
def reference_logits(checkpoint: Path, prompt: Prompt) -> torch.Tensor:
    """[tokens, vocabulary], by transformers, from the same rows."""
    model = reference.load_model(checkpoint)
    ids = torch.tensor(prompt.token_ids, dtype=torch.long)
    visual = torch.tensor(prompt.is_visual)
    merged, *deepstack = torch.tensor(prompt.rows).split(model.config.text_config.hidden_size, dim=1)
    embeddings = model.get_input_embeddings()(ids)
    embeddings[visual] = merged
    hidden = model.model.language_model(
        inputs_embeds=embeddings[None],
        position_ids=torch.tensor(prompt.positions, dtype=torch.long)[:, None],
        visual_pos_masks=visual[None],
        deepstack_visual_embeds=deepstack,
    )[0]
    return model.lm_head(hidden)[0]


BLOCKS = {
    "neighbours": tuple(range(3, 40)),
    "two runs": (7, 8, 9, *range(30, 64)),
    # More runs than are read in place.
    "scattered": tuple(n for pair in zip(range(0, 40, 2), range(63, 23, -2), strict=True) for n in pair),
}


@pytest.mark.parametrize("blocks", BLOCKS.values(), ids=BLOCKS.keys())
@pytest.mark.parametrize("step", [1000, 37])
def test_logits_are_those_of_transformers(any_checkpoint: Path, blocks: tuple[int, ...], step: int) -> None:
    prompt = make_prompt(any_checkpoint, 5, frames=5)
    config = read_model_config(any_checkpoint)
    model = TextModel(config, load_weights(any_checkpoint, config, CPU, torch.float32))
    cache = KVCache(config, 64, BLOCK_SIZE, CPU, torch.float32, torch.float32)
    for states in (*cache.keys, *cache.values):
        states.memory[0].fill_(float("nan"))
    sequence = sequence_of(any_checkpoint, prompt, blocks, cuts=(11, 50))
    expected = reference_logits(any_checkpoint, prompt)
    with torch.inference_mode():
        while sequence.prefilling:
            work = Work(sequence, min(step, sequence.prompt.available), prefill=True, yields_token=False)
            batch = build_batch([work], CPU)
            every_token = Batch(**{**vars(batch), "yielding": torch.arange(work.tokens)})
            logits = model(every_token, cache)
            part = expected[sequence.cached : sequence.cached + work.tokens]
            np.testing.assert_allclose(logits, part, atol=2e-4, rtol=1e-4)
            sequence.advance(work.tokens, None)


def test_rotary_positions_are_interleaved_as_in_transformers(any_checkpoint: Path) -> None:
    positions = torch.tensor([[0, 5, 900], [0, 7, 31], [0, 2, 777]])
    ours = RotaryEmbedding(read_model_config(any_checkpoint), CPU)(positions, torch.float32)
    theirs = reference.load_model(any_checkpoint).model.language_model.rotary_emb(torch.zeros(1), positions[:, None])
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine[:, 0], expected[0], rtol=0, atol=1e-6)


def test_attention_is_causal_over_each_spans_own_context() -> None:
    """Against a plain softmax; chunked prefill after two runs and scattered tokens, a whole prefill, decode steps
    after two runs and after one."""
    torch.manual_seed(0)
    heads, kv_heads, width = 6, 2, 16
    cached_keys, cached_values = torch.randn(2, 100, kv_heads, width)
    queries = torch.randn(5 + 7 + 1 + 1, heads, width)
    places = [
        torch.tensor([9, 3, 4, 5, 50, 51, 52, 60, 61, 62, 63, 64]),
        torch.arange(20, 27),
        torch.tensor([*range(70, 80), *range(30, 40)]),
        torch.arange(80, 100),
    ]
    keys, values = (torch.cat([s[places[0][-5:]], s[20:27], s[39:40], s[99:]]) for s in (cached_keys, cached_values))
    spans = (
        Span(0, 5, Context((slice(3, 6), slice(50, 53)), torch.tensor([9]))),
        Span(5, 12, Context((), torch.empty(0, dtype=torch.long))),
        Span(12, 13, Context((slice(70, 80), slice(30, 40)), torch.empty(0, dtype=torch.long))),
        Span(13, 14, Context((slice(80, 100),), torch.empty(0, dtype=torch.long))),
    )
    cached = (FloatLayerCache(states.transpose(0, 1), torch.float32) for states in (cached_keys, cached_values))
    ours = PagedAttention()(queries, keys, values, *cached, spans).unflatten(1, (heads, width))
    for span, slots in zip(spans, places, strict=True):
        for token in range(span.begin, span.end):
            seen = slots[: len(slots) - (span.end - 1 - token)]
            for head in range(heads):
                kv_head = head * kv_heads // heads
                scores = cached_keys[seen, kv_head] @ queries[token, head] / math.sqrt(width)
                expected = scores.softmax(0) @ cached_values[seen, kv_head]
                torch.testing.assert_close(ours[token, head], expected, rtol=1e-5, atol=1e-5)


def test_shards_hold_the_same_weights(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, seed=2, shape=SHAPES["bfloat16"])
    assert (tmp_path / "model.safetensors.index.json").exists()
    config = read_model_config(tmp_path)
    assert config.dtype == "bfloat16"
    weights = load_weights(tmp_path, config, CPU, torch.float32)
    theirs = dict(reference.load_model(tmp_path).named_parameters())
    layer = theirs["model.language_model.layers.1.self_attn.k_proj.weight"]
    begin = config.num_attention_heads * config.head_dim
    qkv = weights.layers[1].qkv
    keys = qkv(torch.eye(config.hidden_size))[:, begin : begin + len(layer)]
    torch.testing.assert_close(keys.T, layer, rtol=0, atol=1e-6)
    shard = sorted(tmp_path.glob("*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(ValueError, match=f"{shard.name} is missing"):
        load_weights(tmp_path, config, CPU, torch.float32)


def test_every_accepted_model_has_an_architecture() -> None:
    assert tuple(ARCHITECTURES) == MODEL_TYPES


def test_wrong_checkpoints_are_refused_by_what_is_wrong(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(checkpoint / "model.safetensors", tmp_path)
    config = json.loads((checkpoint / "config.json").read_text())

    def refused(message: str, **changes: object) -> None:
        text = {**config["text_config"], **changes}
        (tmp_path / "config.json").write_text(json.dumps({**config, "text_config": text}))
        with pytest.raises(ValueError, match=message):
            load_weights(tmp_path, read_model_config(tmp_path), CPU, torch.float32)

    refused("rope type 'linear'; 'default' and 'yarn'", rope_scaling={"rope_type": "linear", "factor": 2.0})
    refused("attention_bias is True", attention_bias=True)
    refused("hidden_act is 'gelu'", hidden_act="gelu")
    refused("q_proj.weight .* config.json says", num_attention_heads=1)
    layers = config["text_config"]["num_hidden_layers"]
    refused(f"no tensor model.language_model.layers.{layers}.input_layernorm", num_hidden_layers=layers + 1)
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "qwen3_vl_moe"}))
    with pytest.raises(ValueError, match="qwen3_vl_moe"):
        read_model_config(tmp_path)
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        read_model_config(tmp_path / "nowhere")
