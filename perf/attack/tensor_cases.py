"""Requests whose tensors and names are wrong: one that the model takes, changed in one to four ways."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc import service_pb2

ITEM_BYTES = {"BOOL": 1, "UINT8": 1, "INT8": 1, "FP16": 2, "INT32": 4, "UINT32": 4, "FP32": 4, "INT64": 8, "FP64": 8}
TYPES = (*ITEM_BYTES, "BYTES", "BF16", "", "FP99", "bytes", "X" * 300)
SHAPES: tuple[list[int], ...] = (
    [],
    [0],
    [-1],
    [2],
    [1, 1],
    [0, 2**62],
    [2**62],
    [2**61],
    [2**31, 2**31, 4],
    [3, 2**62],
    [2**32, 2**32],
    [-(2**63)],
    [2**63 - 1],
    [-1, -1],
    [2**31],
    [65_536, 65_536],
    [1_000_000_000],
    [1] * 100,
    [1] * 3000,
    [2**20, 0, 2**50],
)
NAMES = (
    "",
    "stop",
    "text_input",
    "chunk_header",
    "features",
    "nothing",
    "x" * 5000,
    "a\0b",
    "../../etc",
    "输入",
    "INPUT0",
)
TEXTS = (
    *(b"", b"{", b"null", b"[]", b'"x"', b"{}", b"\xff\xfe", b"\0", b"1e999", b"NaN", b'{"max_tokens": NaN}'),
    *(b'{"max_tokens": -1}', b'{"max_tokens": 1e308}', b'{"max_tokens": "1"}', b'{"max_tokens": 99999999999999999999}'),
    *(b'{"temperature": -1}', b'{"stop": [[]]}', b'{"stop": ""}', b'{"seed": 1e400}', b'{"top_p": 2}', b'{"a": 1}'),
    *(b'{"fps": 1e-308}', b'{"fps": 0}', b'{"max_frames": -5}', b'{"start": 5, "end": 1}', b'{"sampler": "none"}'),
    *(b'[{"role": "user"}]', b'[{"role": "user", "content": [{"type": "video", "video": 99}]}]', b'[{"role": 1}]'),
    *(b'"\\ud800"', b"[" * 3000, b'{"a":' * 1000, b" " * 20_000, b"\xf0\x9f\x98\x80" * 100),
)
PARAMETERS = (
    *("cache_salt", "look", "progress", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout"),
    *("triton_enable_empty_final_response", "headers", "binary_data_output", "x" * 1000, "shared_memory_region"),
)
ANY_VALUE: tuple[Any, ...] = (True, False, 0, 1, -1, 2**63 - 1, "", "1", "x" * 129, "y" * 100_000, 0.5, "\0", "true")
MODELS = {"qwen3_vl": 4, "video_preprocess": 2, "vision_encoder": 1, "decoder": 2}
"""With weights: what clients may ask is asked more often."""
ANSWERED_AT_ONCE = {"max_tokens": 1, "temperature": 0}


@dataclass
class Tensor:
    name: str
    datatype: str
    shape: list[int]
    content: bytes
    contents: bool = False
    """Whether gRPC carries it in `contents` too."""
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass
class Asked:
    """A request before it is written."""

    model: str
    id: str
    inputs: list[Tensor]
    version: str = ""
    outputs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)


def strings(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


def valid(model: str, rng: random.Random) -> Asked:
    """A request that a model takes, if it may be asked at all."""
    id = f"{rng.getrandbits(128):032x}"
    if model == "decoder":
        if rng.random() < 0.4:
            return Asked(model, id, [Tensor("stop", "BOOL", [1], b"\1")])
        opened = {"stream": True, "progress": False, "sampling_parameters": json.dumps(ANSWERED_AT_ONCE)}
        header = {"session": id, "index": rng.choice([0, 1, 2, None, -1]), "sent": 0.0, "open": opened, "begin": 0}
        chunk = [
            Tensor("chunk_header", "BYTES", [1], strings(json.dumps(header).encode())),
            Tensor("token_ids", "INT32", [4], bytes(16)),
            Tensor("positions", "INT32", [3, 4], bytes(48)),
            Tensor("features", "FP32", [1, 1, 4], bytes(16)),
            Tensor("encode_seconds", "FP32", [1], bytes(4)),
        ]
        return Asked(model, id, chunk)
    if model == "vision_encoder":
        patches = [
            Tensor("patches", "UINT8", [1, 4, 1536], bytes(4 * 1536)),
            Tensor("position_indices", "INT32", [4, 4], bytes(64)),
            Tensor("position_weights", "FP32", [4, 4], bytes(64)),
            Tensor("rotary_cos", "FP32", [4, 32], bytes(512)),
            Tensor("rotary_sin", "FP32", [4, 32], bytes(512)),
        ]
        return Asked(model, id, patches)
    asked = [
        Tensor("text_input", "BYTES", [1], strings(b"Hello")),
        Tensor("sampling_parameters", "BYTES", [1], strings(json.dumps(ANSWERED_AT_ONCE).encode())),
    ]
    for name, content in (("video", b"none"), ("image", b"none"), ("video_uri", b"../x"), ("subtitles", b"1\n")):
        if rng.random() < 0.15:
            asked.append(Tensor(name, "BYTES", [1], strings(content)))
    if rng.random() < 0.3:
        asked.append(Tensor("stream", "BOOL", [1], b"\1"))
    parameters = {"look": True} if model == "video_preprocess" and rng.random() < 0.7 else {}
    return Asked(model, id, asked, parameters=parameters)


Change = Callable[[random.Random, Asked], None]


def _tensor(rng: random.Random, asked: Asked) -> Tensor:
    if not asked.inputs:
        asked.inputs.append(Tensor("text_input", "BYTES", [1], strings(b"x")))
    return rng.choice(asked.inputs)


def change_type(rng: random.Random, asked: Asked) -> None:
    _tensor(rng, asked).datatype = rng.choice(TYPES)


def change_shape(rng: random.Random, asked: Asked) -> None:
    tensor = _tensor(rng, asked)
    tensor.shape = list(rng.choice(SHAPES))
    if rng.random() < 0.5:
        tensor.content = b""


def change_length(rng: random.Random, asked: Asked) -> None:
    tensor = _tensor(rng, asked)
    if rng.random() < 0.5:
        tensor.content = tensor.content[: rng.randrange(len(tensor.content) + 1)]
    else:
        tensor.content += rng.randbytes(rng.choice([1, 3, 4, 4096]))


def change_prefix(rng: random.Random, asked: Asked) -> None:
    """The length before a string."""
    tensor = _tensor(rng, asked)
    lie = rng.choice([0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 5, 2**20])
    tensor.content = lie.to_bytes(4, "little") + tensor.content[4:]


def change_text(rng: random.Random, asked: Asked) -> None:
    names = ("sampling_parameters", "video_options", "messages", "text_input", "video_uri", "subtitles", "chunk_header")
    asked.inputs.append(Tensor(rng.choice(names), "BYTES", [1], strings(rng.choice(TEXTS))))


def change_bytes(rng: random.Random, asked: Asked) -> None:
    tensor = _tensor(rng, asked)
    tensor.content = rng.randbytes(len(tensor.content))


def leave_out(rng: random.Random, asked: Asked) -> None:
    asked.inputs.remove(_tensor(rng, asked))


def double(rng: random.Random, asked: Asked) -> None:
    asked.inputs += [_tensor(rng, asked)] * rng.choice([1, 1, 1, 200])


def rename(rng: random.Random, asked: Asked) -> None:
    _tensor(rng, asked).name = rng.choice(NAMES)


def give_parameter(rng: random.Random, asked: Asked) -> None:
    asked.parameters[rng.choice(PARAMETERS)] = rng.choice(ANY_VALUE)


def name_shared_memory(rng: random.Random, asked: Asked) -> None:
    parameters = {
        "shared_memory_region": rng.choice(["evil", "", "triton_python_backend_shm_region_1"]),
        "shared_memory_byte_size": rng.choice([0, 1, 64, -1, 2**62]),
        "shared_memory_offset": rng.choice([0, -1, 2**62]),
    }
    if rng.random() < 0.5:
        _tensor(rng, asked).parameters |= parameters
    else:
        asked.outputs.append(("text_output", parameters))


def give_contents(rng: random.Random, asked: Asked) -> None:
    _tensor(rng, asked).contents = True


def ask_outputs(rng: random.Random, asked: Asked) -> None:
    choices: list[dict[str, Any]] = [{}, {"classification": 5}, {"binary_data": "yes"}]
    parameters = rng.choice(choices)
    asked.outputs += [(rng.choice([*NAMES, "usage", "text_output"]), dict(parameters))] * rng.choice([1, 2, 100])


def change_envelope(rng: random.Random, asked: Asked) -> None:
    asked.id = rng.choice(["", "1", "x" * 100_000, "\0", "é", asked.id])
    asked.version = rng.choice(["", "1", "2", "-1", "99999999999999999999", "x"])


CHANGES: tuple[Change, ...] = (
    *(change_shape, change_shape, change_shape, change_type, change_length, change_prefix, change_text, change_bytes),
    *(leave_out, double, rename, give_parameter, name_shared_memory, give_contents, ask_outputs, change_envelope),
)


def asked_wrongly(rng: random.Random) -> Asked:
    """A request to some model with one to four changes."""
    (model,) = rng.choices(list(MODELS), list(MODELS.values()))
    asked = valid(model, rng)
    for change in rng.choices(CHANGES, k=rng.choice([1, 1, 1, 2, 2, 4])):
        change(rng, asked)
    return asked


def parameter(value: Any) -> service_pb2.InferParameter:
    """A value as gRPC carries it."""
    match value:
        case bool():
            return service_pb2.InferParameter(bool_param=value)
        case int():
            return service_pb2.InferParameter(int64_param=value)
        case float():
            return service_pb2.InferParameter(double_param=value)
    return service_pb2.InferParameter(string_param=str(value))
