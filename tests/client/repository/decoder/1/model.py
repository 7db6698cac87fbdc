"""Notes the requests that are to be stopped: a file of that name in the folder STOPPED."""

import os
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            Path(os.environ["STOPPED"], request.request_id()).touch()
            reason = pb_utils.Tensor("finish_reason", np.array([b"cancelled"], dtype=object))
            request.get_response_sender().send(
                pb_utils.InferenceResponse([reason]), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            )
