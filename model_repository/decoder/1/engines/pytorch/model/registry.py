"""The models that are computed, by `model_type` in config.json: another model is a row here and a file of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from engines.checkpoint import ModelConfig
from engines.pytorch.model.attention import PagedAttention
from engines.pytorch.model.dense_mlp import DenseMlp
from engines.pytorch.model.text_model import TextModel
from engines.pytorch.model.weights import ModelWeights, ReadMlp, read_weights


@dataclass(frozen=True)
class Architecture:
    """How a model is computed, and how its layers' feed-forward parts are read."""

    model: type[TextModel]
    read_mlp: ReadMlp


ARCHITECTURES = {
    "qwen3_vl": Architecture(TextModel, DenseMlp.read),
}


def load_weights(
    folder: Path, config: ModelConfig, device: torch.device, dtype: torch.dtype, precision: str = "auto"
) -> ModelWeights:
    """The checkpoint's weights: see `read_weights`."""
    return read_weights(folder, config, device, dtype, precision, ARCHITECTURES[config.model_type].read_mlp)


def build_model(config: ModelConfig, weights: ModelWeights, *, by_table: bool) -> TextModel:
    """The model that `config` names.

    by_table: whether Triton's kernels compute attention of decode steps, by block table, and what is between products.
    """
    model = ARCHITECTURES[config.model_type].model
    if not by_table:
        return model(config, weights)
    # Only where they are used: Triton comes with PyTorch for GPUs.
    from engines.pytorch.model.fused_operations import FusedOperations
    from engines.pytorch.model.table_attention import table_attention

    return model(config, weights, FusedOperations(config.rms_norm_eps), PagedAttention(table_attention))
