"""Notes the requests that are to be stopped: a file of that name in the folder STOPPED."""

import json
import os
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            note_salt("decoder", request)
            Path(os.environ["STOPPED"], request.request_id()).touch()
            reason = pb_utils.Tensor("finish_reason", np.array([b"cancelled"], dtype=object))
            request.get_response_sender().send(
                pb_utils.InferenceResponse([reason]), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            )


def note_salt(model, request):
    """A line for the tests: which model was asked, and with which salt."""
    salt = json.loads(request.parameters() or "{}").get("cache_salt")
    with Path(os.environ["STOPPED"], "salts").open("a") as file:
        file.write(json.dumps([model, salt]) + "\n")
