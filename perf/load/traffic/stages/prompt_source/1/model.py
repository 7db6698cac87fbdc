"""Stage 1's side of a session, with a prompt that is drawn: see "How a session lives and ends" in model_repository."""

import hashlib
import json
import os
import select
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

# Tokens of single bytes: every checkpoint's vocabulary begins with them.
VOCABULARY = 256
WAIT_SECONDS = 60.0


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        self._directory = Path(parameters["credits_directory"]["string_value"])

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            prompt_tokens = int(pb_utils.get_input_tensor_by_name(request, "prompt_tokens").as_numpy()[0])
            sampling = pb_utils.get_input_tensor_by_name(request, "sampling_parameters").as_numpy()[0].decode()
            sender = request.get_response_sender()
            threading.Thread(target=self._serve, args=(sender, prompt_tokens, sampling), daemon=True).start()

    def _serve(self, sender: Any, prompt_tokens: int, sampling: str) -> None:
        session = uuid.uuid4().hex
        # Drawn anew each time: no prompt begins like another, so that no prefix is cached.
        token_ids = np.random.default_rng().integers(0, VOCABULARY, prompt_tokens, dtype=np.int32)
        positions = np.tile(np.arange(prompt_tokens, dtype=np.int32), (3, 1))

        def send(begin: int, end: int, header: dict[str, Any]) -> None:
            text = json.dumps({"session": session, "sent": time.monotonic(), **header}).encode()
            ids, places = token_ids[begin:end].copy(), positions[:, begin:end].copy()
            signed = _signature((self._directory / "key").read_bytes(), text, ids, places).encode() + text
            tensors = [
                pb_utils.Tensor("chunk_header", np.array([signed], dtype=object)),
                pb_utils.Tensor("token_ids", ids),
                pb_utils.Tensor("positions", places),
            ]
            sender.send(pb_utils.InferenceResponse(tensors))

        path = self._directory / session
        os.mkfifo(path, 0o600)
        pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            asked = {"stream": True, "progress": False, "sampling_parameters": sampling, "cache_salt": ""}
            send(0, 0, {"index": 0, "open": asked})
            plan = {"prompt_tokens": prompt_tokens, "video_tokens": 0, "next_position": prompt_tokens}
            send(0, prompt_tokens, {"index": 1, "plan": {**plan, "media": [], "digests": []}})
            held = int(_read_until(pipe, b"\n").partition(b"\n")[0].lstrip(b"="))
            send(held, prompt_tokens, {"index": 2, "begin": held, "last": True, "seconds": {}})
            _read_until(pipe, b".")
        finally:
            os.close(pipe)
            path.unlink(missing_ok=True)
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _signature(key: bytes, *parts: bytes | np.ndarray) -> str:
    """As stage 1 signs; the key is stage 3's, which is loaded before it is asked."""
    told = hashlib.blake2b(key=key, digest_size=32)
    for part in parts:
        content = bytes(part)
        told.update(len(content).to_bytes(8, "little") + content)
    return told.hexdigest()


def _read_until(pipe: int, mark: bytes) -> bytes:
    """Reads what stage 3 writes, up to and with `mark`. The pipe reads as ended until stage 3 has opened it."""
    received = b""
    deadline = time.monotonic() + WAIT_SECONDS
    while mark not in received:
        if time.monotonic() > deadline:
            raise TimeoutError(f"stage 3 did not write {mark!r} within {WAIT_SECONDS:g} s")
        select.select([pipe], [], [], 1)
        try:
            piece = os.read(pipe, 4096)
        except BlockingIOError:
            continue
        if not piece:
            time.sleep(0.001)
        received += piece
    return received
