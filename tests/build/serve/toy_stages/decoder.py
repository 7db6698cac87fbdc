"""A stage 3 without a model: answers a session's first chunk with `max_tokens` words, 20 a second."""

import contextlib
import json
import os
import select
import threading
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.credits = Path(parameters["credits_directory"]["string_value"])
        if parameters["engine"]["string_value"] == "broken":
            raise ValueError("this engine is broken")
        # These sessions had their first chunk with a process that died.
        for fifo in self.credits.iterdir():
            with contextlib.suppress(OSError):
                os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            tensor = pb_utils.get_input_tensor_by_name(request, "chunk_header")
            if tensor is None:
                sender.send(_answer("", ""), flags=FINAL)
                continue
            header = json.loads(tensor.as_numpy()[0])
            if "open" in header:
                threading.Thread(target=self.generate, args=(header, sender), daemon=True).start()
            else:
                sender.send(flags=FINAL)

    def generate(self, header, sender):
        sampling = json.loads(header["open"]["sampling_parameters"])
        fifo = os.open(self.credits / header["session"], os.O_WRONLY)
        polled = select.poll()
        polled.register(fifo, 0)
        for _ in range(sampling["max_tokens"]):
            if polled.poll(50):
                error = pb_utils.TritonError("unavailable: stage 1 went away")
                sender.send(pb_utils.InferenceResponse(error=error))
                break
            sender.send(_answer("word ", ""))
        else:
            sender.send(_answer("", "length"))
            os.write(fifo, b".")
        os.close(fifo)
        sender.send(flags=FINAL)


def _answer(text, finish_reason):
    values = {"text_output": text, "finish_reason": finish_reason, "usage": "{}"}
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, np.array([value.encode()], dtype=object)) for name, value in values.items()]
    )
