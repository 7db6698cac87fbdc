"""Tensors that no stage makes, sent to each stage past the ensemble: an error each, and no stage ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.support import wire
from tests.support.serving import Server

pytestmark = pytest.mark.usefixtures("unharmed")

VISION = {
    "patches": np.zeros((1, 4, 1536), np.uint8),
    "position_indices": np.zeros((4, 4), np.int32),
    "position_weights": np.zeros((4, 4), np.float32),
    "rotary_cos": np.zeros((4, 32), np.float32),
    "rotary_sin": np.zeros((4, 32), np.float32),
}
CHUNK = {
    "chunk_header": np.array([b"0" * 64 + b"{}"], dtype=object),
    "token_ids": np.zeros(3, np.int32),
    "positions": np.zeros((3, 3), np.int32),
    "features": np.zeros((0, 1, 256), np.float32),
}
QUESTION = {"text_input": np.array([b"Hi"], dtype=object)}


def texts(*values: bytes) -> np.ndarray:
    return np.array(values, dtype=object)


STRANGE = [
    ("decoder", CHUNK, {"chunk_header": texts()}),
    ("decoder", CHUNK, {"chunk_header": texts(b"", b"")}),
    ("decoder", CHUNK, {"chunk_header": texts(b"\xff" * 100)}),
    ("decoder", CHUNK, {"chunk_header": texts(b"[" * (65 << 20))}),
    ("decoder", CHUNK, {"chunk_header": np.zeros(1, np.int32)}),
    ("decoder", CHUNK, {"token_ids": np.zeros((3, 1), np.int32)}),
    ("decoder", CHUNK, {"token_ids": np.zeros((1 << 24) + 1, np.int32)}),
    ("decoder", CHUNK, {"positions": np.zeros((0, 3), np.int32)}),
    ("decoder", CHUNK, {"positions": np.zeros((3, 0), np.int32), "features": np.zeros((0, 0, 0), np.float32)}),
    ("decoder", CHUNK, {"features": np.zeros((1 << 20, 0, 3), np.float32)}),
    ("decoder", CHUNK, {"encode_seconds": np.zeros(1, np.float32) + np.nan}),
    ("decoder", CHUNK, {"encode_seconds": np.zeros(2, np.float32)}),
    ("decoder", {}, {"stop": np.ones(2, bool)}),
    ("decoder", {}, {"stop": np.ones((1, 1), bool)}),
    ("decoder", {}, {"stop": np.ones(1, bool)}),
    ("vision_encoder", VISION, {"patches": np.zeros((1, 0, 1536), np.uint8)}),
    ("vision_encoder", VISION, {"patches": np.zeros((0, 1 << 20, 1536), np.uint8)}),
    ("vision_encoder", VISION, {"patches": np.zeros((0, 0, 0), np.uint8)}),
    ("vision_encoder", VISION, {"position_indices": np.full((4, 4), -1, np.int32)}),
    ("vision_encoder", VISION, {"rotary_cos": np.zeros((0, 0), np.float32)}),
    ("video_preprocess", QUESTION, {"text_input": texts()}),
    ("video_preprocess", QUESTION, {"text_input": texts(b"a", b"b")}),
    ("video_preprocess", QUESTION, {"text_input": texts(b"\xff")}),
    ("video_preprocess", QUESTION, {"video": texts(*[b""] * 257)}),
    ("video_preprocess", QUESTION, {"video_uri": texts(*[b"a.mp4"] * 100_000)}),
    ("video_preprocess", QUESTION, {"video_uri": texts(b"\xed\xa0\x80")}),
    ("video_preprocess", QUESTION, {"subtitles": np.zeros((1, 1), object)}),
    ("video_preprocess", {}, {"stream": np.ones(1, bool)}),
    ("video_preprocess", {}, {"messages": texts(b'[{"role": "user", "content": "\\ud800"}]')}),
]


@pytest.mark.parametrize(("model", "tensors", "strange"), STRANGE, ids=[str(place) for place in range(len(STRANGE))])
def test_strange_tensors_are_refused(server: Server, model: str, tensors: Any, strange: Any) -> None:
    heals = server.heals()
    inputs = [wire.tensor(name, values) for name, values in (tensors | strange).items()]
    with pytest.raises((wire.RequestError, triton.InferenceServerException)):
        send(server, model, inputs)
    assert server.heals() == heals


def send(server: Server, model: str, inputs: Sequence[triton.InferInput]) -> None:
    if model == "vision_encoder":
        triton.InferenceServerClient(server.grpc_url).infer(model, list(inputs))
        return
    request = wire.Request(server.grpc_url, inputs, model=model, request_id="short")
    try:
        list(request)
    finally:
        request.close()


def test_encode_seconds_are_seconds(server: Server) -> None:
    """Beside a header that stage 1 has signed."""
    stage_1 = wire.Request(server.grpc_url, wire.question("Hi"), model="video_preprocess")
    header = next(iter(stage_1)).as_numpy("chunk_header")
    for seconds in (np.nan, np.inf, -1.0):
        tensors = CHUNK | {"chunk_header": header, "token_ids": np.zeros(0, np.int32)}
        tensors |= {"positions": np.zeros((3, 0), np.int32), "encode_seconds": np.full(1, seconds, np.float32)}
        inputs = [wire.tensor(name, values) for name, values in tensors.items()]
        with pytest.raises(wire.RequestError, match=r"encode_seconds is (nan|inf|-1.0); a number of seconds from 0 on"):
            send(server, "decoder", inputs)
    stage_1.close()
