"""Stage 3's side of the credits, and nothing else of it: see "How a session lives and ends" in model_repository."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

CHUNKS_IN_FLIGHT = 4
SIGNATURE_BYTES = 64


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        self._directory = Path(parameters["credits_directory"]["string_value"])
        self._pipes: dict[str, int] = {}

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._take(request) for request in requests]

    def _take(self, request: Any) -> Any:
        header = json.loads(pb_utils.get_input_tensor_by_name(request, "chunk_header").as_numpy()[0][SIGNATURE_BYTES:])
        patches = pb_utils.get_input_tensor_by_name(request, "patches").as_numpy()
        # Stage 1 may have gone: that is its affair.
        with contextlib.suppress(OSError):
            self._grant(header)
        frames = pb_utils.Tensor("frames", np.array([patches.shape[0]], np.int32))
        return pb_utils.InferenceResponse([frames])

    def _grant(self, header: dict[str, Any]) -> None:
        session, index = header["session"], header["index"]
        if index == 0:
            self._pipes[session] = os.open(self._directory / session, os.O_WRONLY | os.O_NONBLOCK)
        elif index == 1:
            os.write(self._pipes[session], b"=0\n" + b"+" * CHUNKS_IN_FLIGHT)
        elif index is not None and not header.get("last"):
            os.write(self._pipes[session], b"+")
        if header.get("last") or header.get("error"):
            pipe = self._pipes.pop(session)
            os.write(pipe, b".")
            os.close(pipe)
