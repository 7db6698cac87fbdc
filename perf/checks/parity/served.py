"""One request through the served stages: what each of them made of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from perf.checks.parity.cases import Case
from tests.support import wire

VISION_INPUTS = ("patches", "position_indices", "position_weights", "rotary_cos", "rotary_sin")


@dataclass(frozen=True)
class Served:
    token_ids: np.ndarray
    """The expanded prompt, `[tokens]`."""
    positions: np.ndarray
    """`[3, tokens]`."""
    features: np.ndarray
    """Packed rows of the visual tokens in order, `[visual tokens, hidden * (1 + levels)]`."""
    generated: list[int]


def serve(case: Case, grpc_url: str, credits_directory: Path, max_tokens: int) -> Served:
    chunks = sorted(_chunks(case, grpc_url, credits_directory), key=lambda chunk: chunk["header"]["index"])
    sampling = {"temperature": 0, "max_tokens": max_tokens, "ignore_eos": True, "return_token_ids": True}
    return Served(
        # Chunk 1 tells the whole prompt at once; those after it, piece by piece.
        np.concatenate([chunk["token_ids"] for chunk in chunks[2:]]),
        np.concatenate([chunk["positions"] for chunk in chunks[2:]], axis=1),
        _encode(chunks, grpc_url),
        wire.ask(grpc_url, _inputs(case, sampling=sampling, stream=False)).token_ids,
    )


def _inputs(case: Case, **more: Any) -> list[triton.InferInput]:
    return wire.question(
        messages=case.messages, video=case.videos, image=case.images, options=case.video_options, **more
    )


def _chunks(case: Case, grpc_url: str, credits_directory: Path) -> Iterator[dict[str, Any]]:
    """Calls stage 1 alone and plays stage 3 on the FIFO: grants credits, ends the session after the last chunk."""
    request = wire.Request(grpc_url, _inputs(case), model="video_preprocess")
    fifo = -1
    try:
        for result in request:
            # After 64 digits of signature.
            header = json.loads(result.as_numpy("chunk_header")[0][64:])
            if header["index"] == 0:
                fifo = os.open(credits_directory / header["session"], os.O_WRONLY)
                os.write(fifo, b"=0\n" + b"+" * 1000)
            if header["index"] is not None:
                tensors = {name: result.as_numpy(name) for name in ("token_ids", "positions", *VISION_INPUTS)}
                yield {"header": header, **tensors}
            if header.get("last"):
                os.write(fifo, b".")
                os.close(fifo)
                fifo = -1
    finally:
        if fifo >= 0:
            os.close(fifo)
        request.close()


def _encode(chunks: list[dict[str, Any]], grpc_url: str) -> np.ndarray:
    client = triton.InferenceServerClient(grpc_url)
    rows = []
    for chunk in chunks:
        inputs = [wire.tensor(name, chunk[name]) for name in VISION_INPUTS]
        features = client.infer("vision_encoder", inputs).as_numpy("features")
        rows.append(features.reshape(-1, features.shape[-1]))
    return np.concatenate(rows)
