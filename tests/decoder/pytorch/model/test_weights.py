"""Weights of 8 and 4 bits: rounded here, or published so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engines.checkpoint import read_model_config
from engines.pytorch.cache.kv_cache import KVCache
from engines.pytorch.model.batch import Batch
from engines.pytorch.model.dense_mlp import DenseMlp
from engines.pytorch.model.linear import Grouped4Bit, Int4Linear, Int8Linear, PackedLinear, dense_linear, group_size_of
from engines.pytorch.model.registry import load_weights
from engines.pytorch.model.text_model import TextModel
from engines.pytorch.work import Work, build_batch
from tests.decoder.pytorch.model.test_text_model import BLOCK_SIZE, sequence_of
from tests.support.harness import Prompt, make_prompt
from tests.support.quantised import FORMATS, publish

CPU = torch.device("cpu")


@torch.inference_mode()
def logits_of(
    checkpoint: Path,
    prompt: Prompt,
    precision: str = "auto",
    *,
    kept: torch.dtype = torch.float32,
    blocks: tuple[int, ...] = tuple(range(64)),
) -> torch.Tensor:
    """[tokens, vocabulary], in steps of 50 tokens, so that later ones read the cache."""
    config = read_model_config(checkpoint)
    model = TextModel(config, load_weights(checkpoint, config, CPU, torch.float32, precision))
    sequence = sequence_of(checkpoint, prompt, blocks)
    cache = KVCache(config, 64, BLOCK_SIZE, CPU, torch.float32, kept)
    logits = []
    while sequence.prefilling:
        work = Work(sequence, min(50, sequence.prompt.available), prefill=True, yields_token=False)
        batch = build_batch([work], CPU)
        logits.append(model(Batch(**{**vars(batch), "yielding": torch.arange(work.tokens)}), cache))
        sequence.advance(work.tokens, None)
    return torch.cat(logits)


def relative_error(ours: torch.Tensor, expected: torch.Tensor) -> float:
    return ((ours - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("rows", [1, 8, 40], ids=lambda rows: f"{rows} rows")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_products_are_those_of_the_rounded_weights(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, hidden = torch.randn(96, 256), torch.randn(rows, 256, dtype=dtype)
    eight = Int8Linear.quantise(weight)
    spread = eight.values.float() * eight.scales.float().unsqueeze(1)
    assert relative_error(spread, weight) < 0.01
    grouped = Grouped4Bit.quantise(weight, 64)
    assert relative_error(grouped.dequantised(), weight) < 0.12
    for linear, rounded in ((eight, spread), (Int4Linear.pack(grouped), grouped.dequantised())):
        product = linear(hidden)
        assert product.dtype == dtype
        # What is left is the rounding of activations and scales to bfloat16.
        assert relative_error(product.float(), hidden.float() @ rounded.T) < 0.01


def test_weights_that_are_rounded_at_start_are_close_to_the_checkpoints(checkpoint: Path) -> None:
    prompt = make_prompt(checkpoint, 4)
    dense = logits_of(checkpoint, prompt)
    errors = [relative_error(logits_of(checkpoint, prompt, precision), dense) for precision in ("int8", "int4")]
    assert 0 < errors[0] < 0.05 < errors[1] < 0.6


@pytest.mark.parametrize("name", FORMATS)
def test_published_checkpoints_are_read_as_they_are(checkpoint: Path, tmp_path: Path, name: str) -> None:
    quantised, dequantised = publish(checkpoint, name, tmp_path)
    prompt = make_prompt(checkpoint, 4)
    expected = logits_of(dequantised, prompt)
    error = relative_error(logits_of(quantised, prompt), expected)
    config = read_model_config(quantised)
    mlp = load_weights(quantised, config, CPU, torch.float32).layers[1].mlp
    assert isinstance(mlp, DenseMlp)
    if name in ("awq", "gptq"):
        assert isinstance(mlp.down, Int4Linear), "it should stay packed"
        # bfloat16's, over the layers. The format's own, against the dense weights, is ten times that.
        assert error < 0.04
    else:
        assert isinstance(mlp.down, PackedLinear)
        assert error < 1e-4
    assert relative_error(expected, logits_of(checkpoint, prompt)) > 2 * error


@pytest.mark.parametrize("rows", [1, 2, 64, 65, 200])
def test_packed_weights_multiply_as_they_are(rows: int) -> None:
    torch.manual_seed(0)
    weight, hidden = torch.randn(48, 80), torch.randn(rows, 80)
    packed = dense_linear(weight)
    assert isinstance(packed, PackedLinear)
    torch.testing.assert_close(packed(hidden), hidden @ weight.T, rtol=1e-5, atol=1e-4)
    assert packed(hidden).shape == (rows, 48)


def test_unknown_formats_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    quantised, _ = publish(checkpoint, "awq", tmp_path)
    config = json.loads((quantised / "config.json").read_text())

    def refused(message: str, **changes: object) -> None:
        changed = {**config, "quantization_config": {**config["quantization_config"], **changes}}
        (quantised / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=message):
            load_weights(quantised, read_model_config(quantised), CPU, torch.float32)

    refused("quant_method is 'bitsandbytes'; awq, gptq, fp8", quant_method="bitsandbytes")
    refused("AWQ with 4 bits, gemv; 4 bits, gemm are accepted", version="gemv")
    refused("GPTQ with 3 bits; 4 and 8 are accepted", quant_method="gptq", bits=3)
    refused("are pack-quantized; float-quantized", quant_method="compressed-tensors", format="pack-quantized")
    with pytest.raises(ValueError, match=r"a weight has 80 inputs; .* a multiple of 32"):
        group_size_of(80)
