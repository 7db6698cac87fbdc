"""The planner's bytes per precision against the tensors that the PyTorch engine makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from build.assemble.checkpoint_factory import make_checkpoint
from build.assemble.repository import configurations
from build.gpu.configurations import PYTORCH_NAMES
from build.gpu.planner import memory
from build.gpu.planner.models import find_model
from build.gpu.planner.profiles import PYTORCH_KV_CACHE, PYTORCH_WEIGHTS
from build.gpu.planner.weights import kv_bytes_per_token, tensor_bytes
from engines.checkpoint import read_model_config
from engines.pytorch.cache import layer_cache
from engines.pytorch.cache.kv_cache import KVCache
from engines.pytorch.model.linear import Grouped4Bit, Int4Linear
from engines.settings import read_settings

TORCH = {"bf16": torch.bfloat16, "int8": torch.int8}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(folder)
    return folder


@pytest.mark.parametrize("precision", PYTORCH_KV_CACHE)
def test_a_cache_takes_what_is_counted_for_its_tokens(checkpoint: Path, precision: str) -> None:
    config, blocks, block_size = read_model_config(checkpoint), 6, 16
    cache = KVCache(config, blocks, block_size, torch.device("cpu"), torch.bfloat16, TORCH[precision])
    tensors = [tensor for states in (*cache.keys, *cache.values) for tensor in states.memory]
    counted = kv_bytes_per_token(find_model(str(checkpoint)), precision) * blocks * block_size
    assert sum(tensor.nbytes for tensor in tensors) == counted


def test_a_weight_of_4_bits_takes_what_is_counted_for_it() -> None:
    weight = Int4Linear.pack(Grouped4Bit.quantise(torch.randn(512, 256), group_size=128))
    counted = tensor_bytes("model.language_model.layers.0.mlp.up_proj.weight", (512, 256), "int4")
    assert weight.packed.nbytes + weight.scales_and_offsets.nbytes == counted


def test_what_the_planner_knows_of_the_engine_is_so() -> None:
    assert layer_cache._MAX_COPIED_TOKENS == memory.READ_BACK_TOKENS
    config = text_format.Parse(configurations({})["decoder"], ModelConfig())
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    assert int(parameters["chunks_in_flight"]) == memory.CHUNKS_IN_FLIGHT
    for weights in PYTORCH_WEIGHTS:
        read_settings({**parameters, "weights": PYTORCH_NAMES[weights]}, Path("1"))
    for kv_cache in PYTORCH_KV_CACHE:
        read_settings({**parameters, "kv_cache_dtype": PYTORCH_NAMES[kv_cache]}, Path("1"))
