from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, shape_inference
from onnx.reference import ReferenceEvaluator

from build.gpu.tensorrt_vision.builder import BuildError
from build.gpu.tensorrt_vision.check import check_features
from build.gpu.tensorrt_vision.graph import ELEMENT_TYPES, write_typed_graph

Chunk = dict[str, np.ndarray[Any, Any]]
MakeChunk = Callable[[int, int], Chunk]

# onnx-tensorrt, docs/operators.md: supported, with 16-bit floats.
TENSORRT_OPERATORS = {
    "Add", "Cast", "Concat", "Div", "Erf", "Gather", "LayerNormalization", "MatMul", "Mul", "Neg", "Pow", "ReduceSum",
    "Reshape", "Shape", "Slice", "Softmax", "Split", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze",
}  # fmt: skip
# The same page: these inputs must be initializers.
CONSTANT_INPUTS = {"Slice": 3, "Squeeze": 1, "Unsqueeze": 1, "ReduceSum": 1}
TENSORRT_TYPES = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT32, TensorProto.INT64}


@pytest.fixture(scope="module", params=list(ELEMENT_TYPES))
def typed(request: pytest.FixtureRequest, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp(request.param) / "vision.onnx"
    write_typed_graph(exported, path, request.param)
    return request.param, path


def runner(precision: str, path: Path) -> Callable[[Chunk], np.ndarray[Any, Any]]:
    """ONNX Runtime has no bf16 on a CPU; onnx's own evaluator has."""
    if precision == "bf16":
        evaluator = ReferenceEvaluator(str(path))
        return lambda chunk: evaluator.run(None, chunk)[0]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda chunk: session.run(None, chunk)[0]


def test_features_are_those_that_stage_2_serves(typed: tuple[str, Path], exported: Path, make_chunk: MakeChunk) -> None:
    precision, path = typed
    chunks = [make_chunk(3, 24), make_chunk(1, 4)]
    # The evaluator infers no empty shapes.
    chunks += [] if precision == "bf16" else [make_chunk(0, 4)]
    error = check_features(runner(precision, path), exported, chunks, precision)
    assert error < {"fp32": 1e-5, "fp16": 2e-3, "bf16": 4e-2}[precision]
    if precision != "fp32":
        assert error > 1e-5, "the graph does not compute in 16 bits"


def test_only_operators_and_types_that_tensorrt_documents(typed: tuple[str, Path]) -> None:
    model = onnx.load(typed[1], load_external_data=False)
    assert [opset.domain for opset in model.opset_import] == [""]
    assert {node.op_type for node in model.graph.node} <= TENSORRT_OPERATORS
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        index = CONSTANT_INPUTS.get(node.op_type, len(node.input))
        assert constants.issuperset(node.input[index : index + 1]), node.name
    inferred = shape_inference.infer_shapes(model, strict_mode=True)
    types = {value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    types |= {tensor.data_type for tensor in inferred.graph.initializer}
    assert types <= TENSORRT_TYPES


def test_bytes_are_read_by_one_cast_and_nothing_else(typed: tuple[str, Path]) -> None:
    model = onnx.load(typed[1], load_external_data=False)
    assert [node.op_type for node in model.graph.node if "patches" in node.input] == ["Cast"]


def test_matrix_products_are_16_bit_and_rotation_is_not(exported: Path, tmp_path: Path) -> None:
    write_typed_graph(exported, tmp_path / "vision.onnx", "bf16")
    model = shape_inference.infer_shapes(onnx.load(tmp_path / "vision.onnx"), strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    producers = {name: node for node in model.graph.node for name in node.output}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "LayerNormalization", "Softmax")]
    assert products
    assert all(types[node.output[0]] == TensorProto.BFLOAT16 for node in products)
    rotated = [node for node in model.graph.node if node.op_type == "Mul" and "unsqueeze_1" in node.input]
    assert producers["unsqueeze_1"].input[0] == "rotary_cos"
    assert rotated
    assert all(types[node.output[0]] == TensorProto.FLOAT for node in rotated)
    (output,) = model.graph.output
    assert output.type.tensor_type.elem_type == TensorProto.FLOAT


def test_weights_are_stored_once_in_16_bits(exported: Path, tmp_path: Path) -> None:
    sizes = {}
    for precision in ("fp32", "bf16"):
        path = tmp_path / precision / "vision.onnx"
        path.parent.mkdir()
        write_typed_graph(exported, path, precision)
        # Again, over what is there: external data must not grow.
        write_typed_graph(exported, path, precision)
        sizes[precision] = path.with_name("vision.onnx.data").stat().st_size
    # The position table stays in 32 bits.
    assert 0.5 < sizes["bf16"] / sizes["fp32"] < 0.6


def test_an_unknown_precision_is_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'fp8' is unknown; accepted are fp32, bf16, fp16"):
        write_typed_graph(exported, tmp_path / "vision.onnx", "fp8")


def test_wrong_features_are_refused(exported: Path, make_chunk: MakeChunk) -> None:
    run = runner("fp32", exported)
    with pytest.raises(BuildError, match=r"100\.0% off for 1 frames of 8 patches; 6\.0% is what bf16 explains"):
        check_features(lambda chunk: np.zeros_like(run(chunk)), exported, [make_chunk(1, 8)], "bf16")
    with pytest.raises(BuildError, match="nan% off"):
        check_features(lambda chunk: np.nan * run(chunk), exported, [make_chunk(1, 8)], "bf16")
    with pytest.raises(BuildError, match=r"answers \(1, 2, 255\) for 1 frames of 8 patches; \(1, 2, 256\) is right"):
        check_features(lambda chunk: run(chunk)[..., 1:], exported, [make_chunk(1, 8)], "bf16")
    with pytest.raises(BuildError, match="for 0 frames"):
        check_features(lambda _: run(make_chunk(1, 8)), exported, [make_chunk(0, 8)], "bf16")
