"""A stage 1 without media: announces a session, holds its request open with heartbeats until stage 3 ends it."""

import json
import os
import select
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.credits = Path(parameters["credits_directory"]["string_value"])

    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.serve, args=(request, request.get_response_sender()), daemon=True).start()

    def serve(self, request, sender):
        text = pb_utils.get_input_tensor_by_name(request, "text_input")
        if text is None:
            error = pb_utils.TritonError("invalid_argument: text_input is missing")
            sender.send(pb_utils.InferenceResponse(error=error), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            return
        options = json.loads(_string(request, "video_options"))
        # A stage that dies before its first chunk leaves a request that no other stage knows.
        time.sleep(options.get("announce_after_seconds", 0))
        session = uuid.uuid4().hex
        fifo = self.credits / session
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        sampling = _string(request, "sampling_parameters")
        sender.send(_chunk({"session": session, "index": 0, "open": {"sampling_parameters": sampling}}))
        heard, error = b"", None
        while not heard.endswith(b"."):
            if select.select([reader], [], [], 0.2)[0]:
                said = os.read(reader, 64)
                if not said and heard:
                    error = pb_utils.TritonError("unavailable: the decoder went away")
                    break
                heard += said
                time.sleep(0 if said else 0.05)
            if not heard.endswith(b"."):
                sender.send(_chunk({"session": session, "index": None}))
        os.close(reader)
        fifo.unlink()
        if error is not None:
            sender.send(pb_utils.InferenceResponse(error=error))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _string(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return "{}" if tensor is None else tensor.as_numpy()[0].decode()


def _chunk(header):
    arrays = {
        "chunk_header": np.array([json.dumps(header).encode()], dtype=object),
        "token_ids": np.zeros(0, np.int32),
        "positions": np.zeros((3, 0), np.int32),
        "patches": np.zeros((0, 4, 1536), np.uint8),
        "position_indices": np.zeros((4, 4), np.int32),
        "position_weights": np.zeros((4, 4), np.float32),
        "rotary_cos": np.zeros((4, 8), np.float32),
        "rotary_sin": np.zeros((4, 8), np.float32),
    }
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in arrays.items()])
