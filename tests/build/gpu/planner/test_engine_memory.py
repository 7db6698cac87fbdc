"""The planner's formula against the memory that the PyTorch engine takes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from build.gpu.planner.memory import step_activation_bytes
from build.gpu.planner.models import find_model
from build.gpu.planner.profiles import find_profile
from build.gpu.planner.weights import decoder_bytes, kv_bytes_per_token

CONTEXTS = (1024, 2048, 3072, 4096)
STEP_TOKENS = 256


def test_prediction_is_within_5_percent_of_the_engine_at_four_context_lengths(tmp_path: Path) -> None:
    # Large blocks straight from the system: what is freed is given back, and not counted.
    allocator = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.build.gpu.planner.engine_memory", tmp_path, *map(str, CONTEXTS)],
        env={**os.environ, **allocator},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    model = find_model(str(tmp_path))
    activations = step_activation_bytes(replace(find_profile("cpu"), max_step_tokens=STEP_TOKENS), model)
    measured = json.loads(result.stdout)
    assert [entry["context"] for entry in measured] == list(CONTEXTS)
    for entry in measured:
        predicted = decoder_bytes(model, "fp32") + kv_bytes_per_token(model, "fp32") * entry["context"]
        assert abs(entry["settled"] / predicted - 1) < 0.05, entry
        assert predicted < entry["peak"] < (predicted + activations) * 1.05, entry
