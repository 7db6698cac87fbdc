"""Builds the vision tower's TensorRT plan. Needs the GPU that it is for.

Written for TensorRT 10.14 and 11; `tests/build/gpu/tensorrt_vision/check_bindings.py` checks the calls against the
public bindings of both. No TensorRT plan has been built by the authors yet: no GPU was at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from build.assemble.checkpoint_config import PATCH_VALUES
from build.gpu.planner.vision_profiles import Band

if TYPE_CHECKING:
    import tensorrt as trt

WORKSPACE_BYTES = 4 * 2**30
OLDEST_TENSORRT = (10, 14)


class BuildError(RuntimeError):
    """Something that a build needs is missing or went wrong; the message says what, and what to do."""


@dataclass(frozen=True)
class TensorRTPlan:
    """A TensorRT plan that was built. Only this version of TensorRT and this architecture load it."""

    tensorrt: str
    compute_capability: str
    context_bytes: tuple[int, ...]
    """Activation memory of each optimisation profile's execution context."""


def require_tensorrt() -> None:
    """Raises BuildError where TensorRT plans cannot be built."""
    if find_spec("tensorrt") is None:
        raise BuildError(
            "the package tensorrt is not importable: build inside the builder image (docker/builder.Dockerfile), on a"
            " machine with the GPU that the plan is for; `--dry-run` works everywhere"
        )
    import tensorrt as trt

    version = tuple(int(part) for part in trt.__version__.split(".")[:2])
    if version < OLDEST_TENSORRT:
        raise BuildError(
            f"TensorRT {trt.__version__} is too old; {'.'.join(map(str, OLDEST_TENSORRT))} or later builds"
        )
    import torch

    if not torch.cuda.is_available():
        raise BuildError("no GPU is visible: a plan is built on the GPU that it is for (docker run --gpus all ...)")


def build_tensorrt_plan(
    graph: Path, tensorrt_plan: Path, bands: Sequence[Band], head_dim: int, timing_cache: Path
) -> TensorRTPlan:
    """Build `tensorrt_plan` from the typed `graph`, with one optimisation profile per band, and say what it needs.

    head_dim: of the vision tower, the width of the rotary inputs. `timing_cache` is read if there, and written: with it
    a second build for the same GPU and version need not time the kernels again.
    """
    require_tensorrt()
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        errors = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise BuildError(f"TensorRT {trt.__version__} does not read {graph}: {errors}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    for band in bands:
        config.add_optimization_profile(_profile(builder, band, head_dim))
    cache = config.create_timing_cache(timing_cache.read_bytes() if timing_cache.exists() else b"")
    # A cache of another GPU or version is of no use: TensorRT refuses it and starts with an empty one.
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise BuildError(f"TensorRT {trt.__version__} built no plan from {graph}; its log above says why")
    _write(tensorrt_plan, bytes(serialized))
    _write(timing_cache, bytes(config.get_timing_cache().serialize()))
    return _describe(trt.Runtime(logger), tensorrt_plan)


def _profile(builder: trt.Builder, band: Band, head_dim: int) -> trt.IOptimizationProfile:
    profile = builder.create_optimization_profile()
    for name, width in (
        ("position_indices", 4),
        ("position_weights", 4),
        ("rotary_cos", head_dim),
        ("rotary_sin", head_dim),
    ):
        profile.set_shape(
            name, *((patches, width) for patches in (band.min_patches, band.opt_patches, band.max_patches))
        )
    profile.set_shape(
        "patches",
        (band.min_frames, band.min_patches, PATCH_VALUES),
        (band.opt_frames, band.opt_patches, PATCH_VALUES),
        (band.max_frames, band.max_patches, PATCH_VALUES),
    )
    return profile


def _describe(runtime: trt.Runtime, tensorrt_plan: Path) -> TensorRTPlan:
    import tensorrt as trt
    import torch

    engine = runtime.deserialize_cuda_engine(tensorrt_plan.read_bytes())
    if engine is None:
        raise BuildError(f"TensorRT {trt.__version__} does not load the plan that it has just built: {tensorrt_plan}")
    major, minor = torch.cuda.get_device_capability()
    return TensorRTPlan(
        tensorrt=trt.__version__,
        compute_capability=f"{major}.{minor}",
        context_bytes=tuple(
            engine.get_device_memory_size_for_profile_v2(index) for index in range(engine.num_optimization_profiles)
        ),
    )


def _write(path: Path, content: bytes) -> None:
    """A reader finds the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(content)
    draft.replace(path)
