"""The exported vision tower in ONNX Runtime, on the CPU."""

import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from encoder.chunk import MERGED_PATCHES, Chunk

INPUTS = tuple(field.name for field in fields(Chunk))


class VisionEncoder:
    """Loads a tower that `build/assemble/export_vision.py` wrote.

    threads: 0 takes one per core that this process may use.
    """

    def __init__(self, onnx: Path, *, threads: int = 0) -> None:
        if not onnx.is_file():
            raise FileNotFoundError(
                f"{onnx}: there is no exported vision tower; build/assemble/repository.py puts one there"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        # Idle threads would spin on the cores on which the other stages work at the same time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # The arena and the memory pattern remember every shape that was ever seen: here each medium brings its own.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        inputs = {node.name: node.shape for node in self._session.get_inputs()}
        if set(inputs) != set(INPUTS):
            raise ValueError(f"{onnx}: its inputs are {sorted(inputs)}; {sorted(INPUTS)} are accepted")
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._position_embeddings = int(metadata["position_embeddings"])
        self.head_dim: int = inputs["rotary_cos"][-1]
        self.feature_width: int = self._session.get_outputs()[0].shape[-1]

    def encode(self, chunk: Chunk) -> NDArray[np.float32]:
        """Packed rows `[frames, patches/4, feature_width]`; InvalidChunkError if the chunk does not fit the tower."""
        chunk.check(head_dim=self.head_dim, position_embeddings=self._position_embeddings)
        frames, patches, _ = chunk.patches.shape
        features = np.empty((frames, patches // MERGED_PATCHES, self.feature_width), np.float32)
        # Heartbeats and text bring no frames: not worth a run of the graph.
        if frames:
            # Bound buffers are read and written where they are: no copies of pixels and features.
            binding = self._session.io_binding()
            for name in INPUTS:
                binding.bind_cpu_input(name, np.ascontiguousarray(getattr(chunk, name)))
            binding.bind_output("features", "cpu", 0, np.float32, features.shape, features.ctypes.data)
            self._session.run_with_iobinding(binding)
        return features
