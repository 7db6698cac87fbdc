"""Stage 2 in Triton: tensors in, packed feature rows out."""

import json
import math
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from encoder.chunk import Chunk, InvalidChunkError
from encoder.heap import return_large_memory
from encoder.session import VisionEncoder

# One tensor has at most so many: far beyond a chunk, whose patches are some ten megabytes.
MAX_ELEMENTS = 1 << 31


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        return_large_memory()
        parameters = json.loads(args["model_config"])["parameters"]
        folder = Path(args["model_repository"]) / args["model_version"]
        threads = parameters["threads"]["string_value"]
        if not threads.isdecimal():
            raise ValueError(f"the parameter threads is {threads!r}; a whole number is accepted, 0 for one per core")
        self._encoder = VisionEncoder(folder / parameters["onnx"]["string_value"], threads=int(threads))

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        """One request's response: whatever goes wrong with it is told to its sender, not to others of the batch."""
        started = time.perf_counter()
        try:
            features = self._encoder.encode(Chunk(*(_read(request, field.name) for field in fields(Chunk))))
        except InvalidChunkError as error:
            return _failed(pb_utils.TritonError.INVALID_ARG, f"invalid_argument: {error}")
        except Exception as error:
            return _failed(pb_utils.TritonError.INTERNAL, f"internal: the vision tower failed: {error}")
        seconds = np.array([time.perf_counter() - started], np.float32)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("features", features), pb_utils.Tensor("encode_seconds", seconds)]
        )


def _read(request: Any, name: str) -> NDArray[Any]:
    """The input, counted before it is touched."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        raise InvalidChunkError(f"{name} is missing; it is needed")
    elements = math.prod(tensor.shape())
    if elements > MAX_ELEMENTS:
        raise InvalidChunkError(f"{name} has {elements} elements; at most {MAX_ELEMENTS} are accepted")
    return tensor.as_numpy()


def _failed(code: int, message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
