"""Triton's ports: tensors whose shape lies, stages called directly, and ends that others ask for."""

from __future__ import annotations

import functools
import json
import math
import queue
import random
import threading
import time
import uuid
from collections.abc import Iterator, Sequence

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from perf.attack import wire
from perf.attack.expect import GotThroughError, expect
from perf.attack.field import Field
from perf.attack.kinds.control import CALL_SECONDS, GRPC, HTTP, REFUSED, refused, refused_call, stub
from perf.attack.table import attack
from perf.attack.tensor_cases import Asked, Tensor, valid
from tests.support.media import make_video

OVERFLOWING = ([2**62], [2**31, 2**31, 4], [3, 2**62], [2**32, 2**32], [-(2**62)], [2**63 - 1])
_STAGES = ("decoder", "vision_encoder", "video_preprocess", "qwen3_vl")
SHORT_ID = "1"
POISON_SECONDS = 30.0


def request(
    model: str, tensors: Sequence[tuple[str, str, Sequence[int], bytes]], id: str = ""
) -> service_pb2.ModelInferRequest:
    """A raw request: name, type, shape and content of each tensor."""
    made = service_pb2.ModelInferRequest(model_name=model, id=id or uuid.uuid4().hex)
    for name, datatype, shape, content in tensors:
        made.inputs.add(name=name, datatype=datatype, shape=shape)
        made.raw_input_contents.append(content)
    return made


def text_tensor(name: str, text: str) -> tuple[str, str, Sequence[int], bytes]:
    return name, "BYTES", [1], len(text.encode()).to_bytes(4, "little") + text.encode()


def ask_stream(field: Field, message: object, seconds: float = CALL_SECONDS) -> list[service_pb2.ModelInferResponse]:
    """The responses of one request to a decoupled model. Raises grpc.RpcError for an error of either kind."""
    with stub(field.grpc) as triton:
        answers = []
        for one in triton.ModelStreamInfer(iter([message]), timeout=seconds):
            if one.error_message:
                raise _ToldError(one.error_message)
            answers.append(one.infer_response)
        return answers


class _ToldError(grpc.RpcError):
    """An error that came as a message of the stream."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.INVALID_ARGUMENT

    def details(self) -> str:
        return str(self)


def _overflowing(model: str) -> Iterator[Asked]:
    """Requests that are valid but for one tensor, of each shape without content."""
    for place in range(len(valid(model, random.Random(0)).inputs)):
        for shape in OVERFLOWING:
            asked = valid(model, random.Random(0))
            asked.inputs[place].shape, asked.inputs[place].content = shape, b""
            yield asked
    if model == "decoder":
        for shape in OVERFLOWING:
            yield Asked(model, uuid.uuid4().hex, [Tensor("stop", "BOOL", shape, b"")])


def _overflow(model: str) -> None:
    @attack(GRPC, f"shapes that overflow, to {model}", expects="refused; nothing ends", needs=("grpc",))
    def by_grpc(field: Field) -> str:
        told = ""
        for asked in _overflowing(model):
            tensors = [(one.name, one.datatype, one.shape, one.content) for one in asked.inputs]
            told = refused_call(functools.partial(ask_stream, field, request(model, tensors)))
        return told

    @attack(HTTP, f"shapes that overflow, to {model}", expects="refused; nothing ends", needs=("http",))
    def by_http(field: Field) -> str:
        told = ""
        for asked in _overflowing(model):
            inputs = [
                {
                    "name": one.name,
                    "datatype": one.datatype,
                    "shape": one.shape,
                    "parameters": {"binary_data_size": len(one.content)},
                }
                for one in asked.inputs
            ]
            head = json.dumps({"inputs": inputs}).encode()
            headers = {"Inference-Header-Content-Length": str(len(head))}
            body = head + b"".join(one.content for one in asked.inputs)
            told = refused(wire.send(field.http, "POST", f"/v2/models/{model}/infer", body, headers))
        return told


for _model in _STAGES:
    _overflow(_model)


@attack(GRPC, "a forged chunk, straight to the decoder", expects=REFUSED, needs=("grpc",))
def forged_chunk(field: Field) -> str:
    header = {
        "session": uuid.uuid4().hex,
        "index": 0,
        "sent": time.monotonic(),
        "open": {"stream": True, "progress": False, "sampling_parameters": "{}"},
    }
    message = request(
        "decoder",
        [
            text_tensor("chunk_header", json.dumps(header)),
            ("token_ids", "INT32", [0], b""),
            ("positions", "INT32", [3, 0], b""),
            ("features", "FP32", [0, 1, 1], b""),
        ],
    )
    return refused_call(lambda: ask_stream(field, message))


@attack(GRPC, "patches, straight to the vision encoder", expects=REFUSED, needs=("grpc",))
def direct_patches(field: Field) -> str:
    tensors = [
        ("patches", "UINT8", [1, 4, 1536], bytes(4 * 1536)),
        ("position_indices", "INT32", [4, 4], bytes(64)),
        ("position_weights", "FP32", [4, 4], bytes(64)),
        ("rotary_cos", "FP32", [4, 32], bytes(512)),
        ("rotary_sin", "FP32", [4, 32], bytes(512)),
    ]
    with stub(field.grpc) as triton:
        refused_call(lambda: triton.ModelInfer(request("vision_encoder", tensors), timeout=CALL_SECONDS))
    return refused_call(lambda: ask_stream(field, request("vision_encoder", tensors)))


@attack(
    GRPC,
    "features of other frames in another user's prefix cache",
    expects="stage 1 hands out no chunks, the decoder takes none that it did not sign",
    needs=("grpc",),
)
def poisoned_features(field: Field) -> str:
    """Chunks of a video are asked of stage 1, and sent to the decoder with features of nothing."""
    path = field.folder / "poison.mp4"
    make_video(path, width=96, height=64, frames=12, fps=6, seed=77)
    video = path.read_bytes()
    asked = request(
        "video_preprocess",
        [
            text_tensor("text_input", "What is shown?"),
            ("video", "BYTES", [1], len(video).to_bytes(4, "little") + video),
            text_tensor("sampling_parameters", '{"max_tokens": 4}'),
        ],
    )
    sent: queue.Queue[object] = queue.Queue()
    answers: list[str] = []
    with stub(field.grpc) as triton:
        decoding = threading.Thread(target=_decode, args=(triton, sent, answers))
        decoding.start()
        chunks = 0
        try:
            for one in triton.ModelStreamInfer(iter([asked]), timeout=POISON_SECONDS):
                if one.error_message:
                    raise _ToldError(one.error_message)
                sent.put(_with_false_features(one.infer_response))
                chunks += 1
        except grpc.RpcError as error:
            answers.append(f"stage 1: {error.details()}"[:120])
        finally:
            sent.put(None)
            decoding.join()
    text = "; ".join(dict.fromkeys(answers))[:160]
    expect(not chunks, f"stage 1 handed out {chunks} chunks; decoder: {text}")
    return text


def _decode(triton: object, sent: queue.Queue[object], answers: list[str]) -> None:
    def chunks() -> Iterator[object]:
        while (chunk := sent.get()) is not None:
            yield chunk

    try:
        for one in triton.ModelStreamInfer(chunks(), timeout=POISON_SECONDS):  # type: ignore[attr-defined]
            outputs = [output.name for output in one.infer_response.outputs]
            answers.append(one.error_message or f"answered with {outputs}")
    except grpc.RpcError as error:
        answers.append(str(error.details()))


def _with_false_features(chunk: service_pb2.ModelInferResponse) -> object:
    raw = {output.name: content for output, content in zip(chunk.outputs, chunk.raw_output_contents, strict=True)}
    shapes = {output.name: list(output.shape) for output in chunk.outputs}
    frames, patches, _ = shapes.get("patches", [0, 4, 0])
    # Any width will do for what is to be refused by its header.
    features = np.ones((frames, patches // 4, 384 * 3), np.float32)
    return request(
        "decoder",
        [
            ("chunk_header", "BYTES", [1], raw.get("chunk_header", b"")),
            ("token_ids", "INT32", shapes.get("token_ids", [0]), raw.get("token_ids", b"")),
            ("positions", "INT32", shapes.get("positions", [3, 0]), raw.get("positions", b"")),
            ("features", "FP32", list(features.shape), features.tobytes()),
        ],
        id="poison-" + "0" * 16,
    )


@attack(
    GRPC, "stop requests by guessed ids", expects="short ids are refused; a running answer goes on", needs=("grpc",)
)
def stop_by_guessed_ids(field: Field) -> str:
    """A user who chose a short id is answered while somebody stops all short ids."""
    message = request(
        "qwen3_vl",
        [text_tensor("text_input", "Count."), text_tensor("sampling_parameters", '{"max_tokens": 300}')],
        id=SHORT_ID,
    )
    stopped: list[str] = []
    victim = threading.Thread(target=lambda: stopped.extend(_finish_reasons(field, message)))
    victim.start()
    time.sleep(0.3)
    told = ""
    try:
        for id in (SHORT_ID, "2", "a", "0" * 15):
            end = request("decoder", [("stop", "BOOL", [1], b"\x01")], id=id)
            told = refused_call(functools.partial(ask_stream, field, end))
    finally:
        victim.join()
    if "cancelled" in stopped:
        raise GotThroughError("another user's answer was stopped by its short id")
    return told


def _finish_reasons(field: Field, message: object) -> Iterator[str]:
    try:
        for answer in ask_stream(field, message, 60):
            for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True):
                if output.name == "finish_reason":
                    yield content[4:].decode()
    except grpc.RpcError as error:
        yield str(error.details())


@attack(GRPC, "classes of a text are asked for", expects="refused; nothing ends", needs=("grpc",))
def classified_text(field: Field) -> str:
    """Triton's own extension, which is for numbers."""
    message = request(
        "qwen3_vl", [text_tensor("text_input", "Hello"), text_tensor("sampling_parameters", '{"max_tokens": 1}')]
    )
    message.outputs.add(name="text_output").parameters["classification"].int64_param = 5
    return refused_call(functools.partial(ask_stream, field, message))


@attack(GRPC, "numbers that are none, to the decoder", expects=REFUSED, needs=("grpc",))
def nan_features(field: Field) -> str:
    content = np.full((1, 1, 4), math.nan, np.float32).tobytes()
    header = text_tensor("chunk_header", json.dumps({"session": "0" * 32, "index": 2, "sent": 0, "begin": 0}))
    return refused_call(
        lambda: ask_stream(field, request("decoder", [header, ("features", "FP32", [1, 1, 4], content)]))
    )
