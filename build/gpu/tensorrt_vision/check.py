"""Compares a TensorRT plan with the graph that ONNX Runtime serves, on the frames of a real video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from build.gpu.tensorrt_vision.builder import BuildError

if TYPE_CHECKING:
    import tensorrt as trt

Inputs: TypeAlias = Mapping[str, NDArray[Any]]
Runner: TypeAlias = Callable[[Inputs], NDArray[np.float32]]

# The largest norm of a chunk's error, as a share of the norm of its features. What rounding at every layer of a tower
# of 24 to 27 blocks may leave: a few hundredths with the 8 bits of bf16, an eighth of that with the 11 of fp16.
TOLERANCES = {"fp32": 1e-4, "fp16": 8e-3, "bf16": 6e-2}


def check_features(run: Runner, onnx: Path, chunks: Iterable[Inputs], precision: str) -> float:
    """The largest relative error of `run` over `chunks`, against the float32 graph; BuildError above rounding.

    A chunk maps the tower's input names to what stage 1 sends. One without frames must give no rows of the right width.
    """
    reference = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    largest = 0.0
    for chunk in chunks:
        features = run(chunk)
        expected = reference.run(None, dict(chunk))[0]
        frames, patches = chunk["patches"].shape[:2]
        if features.shape != expected.shape:
            raise BuildError(
                f"the plan answers {features.shape} for {frames} frames of {patches} patches; {expected.shape} is right"
            )
        if not frames:
            continue
        error = float(np.linalg.norm(features - expected) / np.linalg.norm(expected))
        # Not a number is above every bound too.
        if not error <= TOLERANCES[precision]:
            raise BuildError(
                f"the plan's features are {error:.1%} off for {frames} frames of {patches} patches;"
                f" {TOLERANCES[precision]:.1%} is what {precision} explains"
            )
        largest = max(largest, error)
    return largest


def tensorrt_plan_runner(tensorrt_plan: Path) -> Runner:
    """Runs `tensorrt_plan` on the GPU, each chunk under the optimisation profile that holds it."""
    import tensorrt as trt
    import torch

    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(tensorrt_plan.read_bytes())
    if engine is None:
        raise BuildError(f"TensorRT {trt.__version__} does not load {tensorrt_plan}")
    context = engine.create_execution_context()

    def run(chunk: Inputs) -> NDArray[np.float32]:
        stream = torch.cuda.current_stream().cuda_stream
        context.set_optimization_profile_async(_profile_for(engine, chunk["patches"].shape), stream)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(values)).cuda() for name, values in chunk.items()}
        for name, tensor in tensors.items():
            context.set_input_shape(name, tuple(tensor.shape))
            context.set_tensor_address(name, tensor.data_ptr())
        features = torch.empty(tuple(context.get_tensor_shape("features")), dtype=torch.float32, device="cuda")
        context.set_tensor_address("features", features.data_ptr())
        if not context.execute_async_v3(stream):
            raise BuildError(f"TensorRT does not run the plan on patches of shape {chunk['patches'].shape}")
        torch.cuda.synchronize()
        return features.cpu().numpy()

    return run


def _profile_for(engine: trt.ICudaEngine, shape: tuple[int, ...]) -> int:
    for index in range(engine.num_optimization_profiles):
        smallest, _, largest = engine.get_tensor_profile_shape("patches", index)
        if all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)):
            return index
    raise BuildError(f"no optimisation profile of the plan holds patches of shape {shape}")
