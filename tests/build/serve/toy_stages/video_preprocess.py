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

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.credits = Path(parameters["credits_directory"]["string_value"])
        self.looks = []

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            if pb_utils.get_input_tensor_by_name(request, "text_input") is None:
                sender.send(_error("invalid_argument: text_input is missing"), flags=FINAL)
                continue
            options = json.loads(_string(request, "video_options"))
            if json.loads(request.parameters() or "{}").get("look"):
                # It looks as long as it lives.
                self.looks.append(sender)
                continue
            # A stage that dies before its first chunk holds requests that no other stage knows.
            time.sleep(options.get("announce_after_seconds", 0))
            sampling = _string(request, "sampling_parameters")
            threading.Thread(target=self.serve, args=(sender, sampling, options), daemon=True).start()

    def serve(self, sender, sampling, options):
        time.sleep(options.get("begin_after_seconds", 0))
        session = uuid.uuid4().hex
        os.mkfifo(self.credits / session)
        reader = os.open(self.credits / session, os.O_RDONLY | os.O_NONBLOCK)
        sender.send(_chunk({"session": session, "index": 0, "open": {"sampling_parameters": sampling}}))
        # One that hears nothing does not tell that stage 3 has gone.
        time.sleep(options.get("deaf_seconds", 0))
        self.hold(sender, session, reader)

    def hold(self, sender, session, reader):
        polled = select.poll()
        polled.register(reader, select.POLLIN)
        heard, hung_up = b"", False
        while not heard.endswith(b".") and not hung_up:
            if polled.poll(200):
                said = os.read(reader, 64)
                heard += said
                hung_up = not said
            else:
                sender.send(_chunk({"session": session, "index": None}))
        os.close(reader)
        (self.credits / session).unlink()
        if hung_up:
            sender.send(_error("unavailable: the decoder went away"))
        sender.send(flags=FINAL)


def _string(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return "{}" if tensor is None else tensor.as_numpy()[0].decode()


def _error(message):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message))


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
