"""From the graph that ONNX Runtime serves on a CPU to one that TensorRT reads: standard operators, strongly typed.

TensorRT chooses no precision by itself in a strongly typed network: the graph says which tensors are 16 bit. Matrix
products, attention and norms are computed in 16 bits, and so is the residual stream. The rotation of queries and keys,
the interpolation of positions and the pixels' normalisation stay in 32, as in the reference.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

ELEMENT_TYPES = {"fp32": TensorProto.FLOAT, "bf16": TensorProto.BFLOAT16, "fp16": TensorProto.FLOAT16}
NUMPY_TYPES: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    TensorProto.FLOAT16: np.dtype(np.float16),
}
ATTENTION = "MultiHeadAttention"

# Computed in the network's own precision, whatever their inputs are.
_TARGET_OPERATORS = {"MatMul", "LayerNormalization", "Softmax"}


def write_typed_graph(source: Path, destination: Path, precision: str) -> None:
    """Write the exported vision tower `source` to `destination` for TensorRT, in `fp32`, `bf16` or `fp16`.

    Inputs and outputs keep their names and types (uint8, int32 and float32). Weights go to `destination`.data.
    ValueError for another precision.
    """
    if precision not in ELEMENT_TYPES:
        raise ValueError(f"precision {precision!r} is unknown; accepted are {', '.join(ELEMENT_TYPES)}")
    model = onnx.load(source)
    _read_bytes_only_by_casts(model.graph)
    _spell_out_attention(model.graph)
    _Typing(model.graph, ELEMENT_TYPES[precision]).apply()
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 18))
    _save(model, destination)


def _save(model: ModelProto, destination: Path) -> None:
    data = destination.with_name(f"{destination.name}.data")
    # onnx appends to a data file that is already there.
    data.unlink(missing_ok=True)
    onnx.save_model(model, destination, save_as_external_data=True, location=data.name, size_threshold=1024)
    onnx.checker.check_model(destination, full_check=True)


def _read_bytes_only_by_casts(graph: GraphProto) -> None:
    """TensorRT takes uint8 tensors as inputs of a network, and nothing but a cast may read them."""
    cast = next(node for node in graph.node if node.op_type == "Cast" and node.input[0] == "patches")
    for node in graph.node:
        if node is not cast:
            for index, name in enumerate(node.input):
                if name == "patches":
                    node.input[index] = cast.output[0]
    graph.node.remove(cast)
    graph.node.insert(0, cast)


def _spell_out_attention(graph: GraphProto) -> None:
    """Replace ONNX Runtime's own attention operator by the matrix products and the softmax that it stands for."""
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes += _attention(graph, node) if node.op_type == ATTENTION else [node]
    del graph.node[:]
    graph.node.extend(nodes)


def _attention(graph: GraphProto, node: NodeProto) -> Iterator[NodeProto]:
    """Three times `[frames, patches, heads * head_dim]` to the same shape."""
    heads = next(attribute.i for attribute in node.attribute if attribute.name == "num_heads")
    hidden = _width(graph, node.input[0])
    name = f"{node.name or node.output[0]}_"
    constants: dict[str, np.ndarray] = {
        "split": np.array([0, 0, heads, hidden // heads], dtype=np.int64),
        "join": np.array([0, 0, hidden], dtype=np.int64),
        "scale": np.array((hidden // heads) ** -0.5, dtype=np.float32),
    }
    for suffix, values in constants.items():
        graph.initializer.append(numpy_helper.from_array(values, name + suffix))
    # Keys are transposed once more, so that queries meet them in one product.
    for value, axes in zip(node.input[:3], ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True):
        yield helper.make_node("Reshape", [value, name + "split"], [f"{name}{value}_heads"])
        yield helper.make_node("Transpose", [f"{name}{value}_heads"], [f"{name}{value}_first"], perm=axes)
    query, key, value = (f"{name}{value}_first" for value in node.input[:3])
    yield helper.make_node("MatMul", [query, key], [name + "products"])
    yield helper.make_node("Mul", [name + "products", name + "scale"], [name + "scores"])
    yield helper.make_node("Softmax", [name + "scores"], [name + "shares"], axis=-1)
    yield helper.make_node("MatMul", [name + "shares", value], [name + "mixed"])
    yield helper.make_node("Transpose", [name + "mixed"], [name + "rows"], perm=[0, 2, 1, 3])
    yield helper.make_node("Reshape", [name + "rows", name + "join"], [node.output[0]])


def _width(graph: GraphProto, name: str) -> int:
    """The last dimension of a value, which the exporter records where it is fixed."""
    shape = next(value.type.tensor_type.shape for value in graph.value_info if value.name == name)
    return shape.dim[-1].dim_value


class _Typing:
    """Gives every float tensor of a graph its type, and inserts the casts that follow."""

    def __init__(self, graph: GraphProto, target: int) -> None:
        self._graph = graph
        self._target = target
        self._types = {
            value.name: value.type.tensor_type.elem_type
            for value in graph.input
            if value.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._converted: dict[tuple[str, int], str] = {}
        self._nodes: list[NodeProto] = []

    def apply(self) -> None:
        for node in self._graph.node:
            self._type(node)
            self._nodes.append(node)
        for output in self._graph.output:
            self._cast_output(output.name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        # Types of inner tensors are told again by inference.
        del self._graph.value_info[:]
        used = {name for node in self._nodes for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _type(self, node: NodeProto) -> None:
        if node.op_type == "Shape":
            return
        if node.op_type == "Cast":
            to = next(attribute.i for attribute in node.attribute if attribute.name == "to")
            if to in NUMPY_TYPES:
                self._types[node.output[0]] = to
            return
        inputs = [index for index, name in enumerate(node.input) if self._is_float(name)]
        if not inputs:
            return
        computed = {self._types[node.input[index]] for index in inputs if node.input[index] in self._types}
        wanted = self._wanted(node.op_type, computed)
        for index in inputs:
            node.input[index] = self._converted_to(node.input[index], wanted)
        self._types.update(dict.fromkeys(node.output, wanted))

    def _wanted(self, operator: str, computed: set[int]) -> int:
        if operator in _TARGET_OPERATORS:
            return self._target
        if operator == "Add":
            # Sums join the residual stream in its precision.
            return self._target if self._target in computed else TensorProto.FLOAT
        # Products with rotary angles, and what is made of constants alone, keep all bits.
        return TensorProto.FLOAT if TensorProto.FLOAT in computed or not computed else self._target

    def _is_float(self, name: str) -> bool:
        return name in self._types or (name in self._constants and self._constants[name].data_type == TensorProto.FLOAT)

    def _converted_to(self, name: str, wanted: int) -> str:
        present = self._types.get(name, TensorProto.FLOAT)
        if present == wanted:
            return name
        if (name, wanted) not in self._converted:
            self._converted[name, wanted] = self._convert(name, wanted)
        return self._converted[name, wanted]

    def _convert(self, name: str, wanted: int) -> str:
        converted = f"{name}_{TensorProto.DataType.Name(wanted).lower()}"
        if name in self._constants:
            values = numpy_helper.to_array(self._constants[name]).astype(NUMPY_TYPES[wanted])
            self._graph.initializer.append(numpy_helper.from_array(values, converted))
        else:
            self._nodes.append(helper.make_node("Cast", [name], [converted], to=wanted))
        return converted

    def _cast_output(self, name: str) -> None:
        if self._types[name] == TensorProto.FLOAT:
            return
        inner = f"{name}_inner"
        producer = next(node for node in self._nodes if name in node.output)
        producer.output[list(producer.output).index(name)] = inner
        self._nodes.append(helper.make_node("Cast", [inner], [name], to=TensorProto.FLOAT))
