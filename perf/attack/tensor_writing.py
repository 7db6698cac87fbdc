"""The cases of `make fuzz-tensors`: a wrong request as gRPC or HTTP carries it, with lengths that may lie.

A case is made from a seed and its number, again and again.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2

from perf.attack.tensor_cases import ANY_VALUE, Asked, Tensor, asked_wrongly, parameter

_DEEP = 3000
_ODD_VALUES: tuple[Any, ...] = (
    [],
    None,
    {},
    "x",
    [[[]]],
    [1e308],
    [True],
    [-1],
    ["x", 1],
    [2**64],
    [None],
    1,
    [[1], [1, 2]],
)


@dataclass(frozen=True)
class Case:
    """door: `infer` and `stream` of gRPC have `content` alone; `http` has a path and headers too. short: less is sent
    than announced, so that no answer is due."""

    number: int
    door: str
    model: str
    content: bytes
    path: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    short: bool = False


def make(seed: int, number: int) -> Case:
    """The case of that number."""
    rng = random.Random(f"{seed}/{number}")
    asked = asked_wrongly(rng)
    return as_http(number, asked, rng) if rng.random() < 0.5 else as_grpc(number, asked, rng)


def as_grpc(number: int, asked: Asked, rng: random.Random) -> Case:
    """`infer` or `stream`; some messages are damaged after they were written."""
    message = service_pb2.ModelInferRequest(model_name=asked.model, model_version=asked.version, id=asked.id)
    for name, value in asked.parameters.items():
        message.parameters[name].CopyFrom(parameter(value))
    raw = []
    for tensor in asked.inputs:
        made = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        for name, value in tensor.parameters.items():
            made.parameters[name].CopyFrom(parameter(value))
        if tensor.contents:
            _fill(made.contents, tensor, rng)
        if not tensor.contents or rng.random() < 0.5:
            raw.append(tensor.content)
    for name, parameters in asked.outputs:
        wanted = message.outputs.add(name=name)
        for key, value in parameters.items():
            wanted.parameters[key].CopyFrom(parameter(value))
    if rng.random() < 0.1:
        raw = raw[:-1] if rng.random() < 0.5 else [*raw, b"more"]
    message.raw_input_contents.extend(raw)
    content = bytearray(message.SerializeToString())
    if rng.random() < 0.1 and content:
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    door = "stream" if rng.random() < 0.85 else "infer"
    return Case(number, door, asked.model, bytes(content))


def _fill(contents: service_pb2.InferTensorContents, tensor: Tensor, rng: random.Random) -> None:
    """Values of its own type, or of another one."""
    count = rng.choice([0, 1, 5, 1000])
    match rng.choice(["its own", "its own", "bytes", "bools", "floats", "both"]):
        case "its own" if tensor.datatype == "BYTES":
            contents.bytes_contents.append(tensor.content[4:])
        case "its own" | "floats":
            contents.fp32_contents.extend([1.0] * count)
        case "bytes":
            contents.bytes_contents.extend([b"x"] * count)
        case "bools":
            contents.bool_contents.extend([True] * count)
        case "both":
            contents.int_contents.extend([-1] * count)
            contents.int64_contents.extend([2**62] * count)


def as_http(number: int, asked: Asked, rng: random.Random) -> Case:
    """`infer` with JSON or binary tensors, `generate` or `generate_stream`."""
    kind = rng.choice(["infer", "generate", "generate_stream"])
    version = f"/versions/{asked.version}" if asked.version.isprintable() and asked.version else ""
    path = f"/v2/models/{asked.model}{version}/{kind}"
    headers: list[tuple[str, str]] = [("Content-Type", "application/json")]
    if kind == "infer":
        content = _infer_body(asked, rng, headers)
    else:
        values = {one.name: _single(_value(one, rng), rng) for one in asked.inputs}
        content = _dumped({"id": asked.id, **asked.parameters, **values})
    if rng.random() < 0.1:
        content = _odd_json(rng)
    if rng.random() < 0.05:
        headers.append(("Content-Encoding", rng.choice(["gzip", "deflate", "br", "x"])))
    length, short = len(content), False
    if rng.random() < 0.04:
        length, short = rng.choice([(length + 100, True), (2**40, True), (max(0, length - 5), False)])
    headers.append(("Content-Length", rng.choice(["-1", "x", "1e3"]) if rng.random() < 0.02 else str(length)))
    return Case(number, "http", asked.model, content, path, tuple(headers), short)


def _infer_body(asked: Asked, rng: random.Random, headers: list[tuple[str, str]]) -> bytes:
    inputs: list[dict[str, Any]] = []
    binary = b""
    for tensor in asked.inputs:
        made: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if rng.random() < 0.6:
            told = len(tensor.content)
            if rng.random() < 0.2:
                told = rng.choice([0, told + 1, -1, 2**62, 2**31, 2**64 - 1])
            made["parameters"] = {**tensor.parameters, "binary_data_size": told}
            binary += tensor.content
        else:
            made |= {"data": _value(tensor, rng), "parameters": tensor.parameters}
        inputs.append(made)
    body: dict[str, Any] = {"id": asked.id, "inputs": inputs, "parameters": asked.parameters}
    if asked.outputs:
        body["outputs"] = [{"name": name, "parameters": parameters} for name, parameters in asked.outputs]
    if rng.random() < 0.1:
        body[rng.choice(["inputs", "outputs", "parameters", "id"])] = rng.choice(
            [*ANY_VALUE, None, {}, [], [[]], [None]]
        )
    head = _dumped(body)
    if binary or rng.random() < 0.1:
        length = str(len(head))
        if rng.random() < 0.2:
            lies = ["0", "-1", "x", "", str(len(head) + 10**6), "99999999999999999999", str(len(head) // 2)]
            length = rng.choice(lies)
        headers.append(("Inference-Header-Content-Length", length))
    return head + binary


def _value(tensor: Tensor, rng: random.Random) -> Any:
    """A tensor's content in JSON, or something else."""
    if rng.random() < 0.3:
        return rng.choice(
            [[], None, {}, "x", [[[]]], [1e308], [True], [-1], ["x", 1], [2**64], [None], 1, [[1], [1, 2]]]
        )
    if tensor.datatype == "BYTES":
        return [tensor.content[4:].decode("latin-1")]
    if tensor.datatype == "BOOL":
        return [bool(tensor.content[:1] == b"\1")]
    return [0] * min(len(tensor.content), 6144)


def _single(value: Any, rng: random.Random) -> Any:
    """As generate takes a tensor of one element, mostly."""
    return value[0] if isinstance(value, list) and len(value) == 1 and rng.random() < 0.9 else value


def _odd_json(rng: random.Random) -> bytes:
    deep = rng.choice([_DEEP, 100_000])
    return rng.choice(
        [
            *(b"", b"{", b"[]", b"null", b'"x"', b"\0", b"{}" * 2, b'{"inputs": {}}', b'{"inputs": [1]}'),
            *(b"[" * deep, b'{"inputs":' * deep, b'{"inputs": ' + b"[" * deep + b"]" * deep + b"}"),
            *(b'{"inputs": [], "inputs": []}', b'{"inputs": 1e400}', b'{"text_input": "\\ud800"}', b"\xff" * 100),
        ]
    )


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()
