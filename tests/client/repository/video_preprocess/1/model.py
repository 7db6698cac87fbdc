"""A video of 400 s with a cut every 50; a question that begins with `error` is one, `silence 2` is two seconds."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

LOOK = {
    "prompt_tokens": 120,
    "wanted_tokens": 120,
    "context_length": 4096,
    "video_tokens": 96,
    "media": [
        {
            "kind": "video",
            "grid": [2, 8, 24],
            "timestamps": [0.5, 2.5],
            "seconds": 400.0,
            "cuts": [float(time) for time in range(50, 400, 50)],
            "changes": [0.0] * 512,
            "pauses": [[10.0, 12.0]],
        }
    ],
}


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            note_salt("video_preprocess", request)
            parameters = json.loads(request.parameters())
            assert parameters.keys() - {"cache_salt"} == {"look", "progress"}
            inputs = {tensor.name(): tensor.as_numpy()[0].decode(errors="replace") for tensor in request.inputs()}
            question = inputs.get("text_input", "")
            if question.startswith("error "):
                response = pb_utils.InferenceResponse(error=pb_utils.TritonError(question.removeprefix("error ")))
            else:
                header = json.dumps({"session": "0" * 32, "index": 0, "look": LOOK})
                tensor = pb_utils.Tensor("chunk_header", np.array([header.encode()], dtype=object))
                response = pb_utils.InferenceResponse([tensor])
            sender = request.get_response_sender()
            # A stage that died says nothing at all.
            seconds = float(question.removeprefix("silence ")) if question.startswith("silence ") else 0.0
            arguments = (response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            threading.Timer(seconds, sender.send, arguments).start()


def note_salt(model, request):
    """A line for the tests: which model was asked, and with which salt."""
    salt = json.loads(request.parameters() or "{}").get("cache_salt")
    with Path(os.environ["STOPPED"], "salts").open("a") as file:
        file.write(json.dumps([model, salt]) + "\n")
