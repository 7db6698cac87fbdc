"""Answers as the question says: a JSON list of steps, each a list of a name and its arguments. Any other question gets
a plain answer."""

import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

USAGE = {
    "prompt_tokens": 120,
    "video_tokens": 96,
    "cached_tokens": 0,
    "completion_tokens": 3,
    "media": [{"kind": "video", "grid": [2, 8, 24], "timestamps": [0.5, 2.5]}],
    "seconds": {"total": 1.5, "preprocess": {"decode": 0.25}},
}
PLAIN = [["progress", "prefill", 120, 64], ["text", "At "], ["text", "2.5 s."], ["finish", "stop"]]


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            note_salt("qwen3_vl", request)
            threading.Thread(target=answer, args=(inputs(request), request.get_response_sender()), daemon=True).start()


def note_salt(model, request):
    """A line for the tests: which model was asked, and with which salt."""
    salt = json.loads(request.parameters() or "{}").get("cache_salt")
    with Path(os.environ["STOPPED"], "salts").open("a") as file:
        file.write(json.dumps([model, salt]) + "\n")


def answer(given, sender):
    final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    for name, *arguments in steps(given):
        if name == "text":
            send(sender, text_output=arguments[0], finish_reason="")
        elif name == "echo":
            send(sender, text_output=json.dumps(given), finish_reason="")
        elif name == "progress":
            phase, prompt_tokens, prefilled_tokens = arguments
            progress = {"phase": phase, "prompt_tokens": prompt_tokens, "prefilled_tokens": prefilled_tokens}
            send(sender, text_output="", finish_reason="", progress=json.dumps(progress))
        elif name == "finish":
            usage = arguments[1] if len(arguments) > 1 else json.dumps(USAGE)
            send(sender, text_output="", finish_reason=arguments[0], usage=usage)
        elif name == "error":
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(arguments[0])), flags=final)
            return
        elif name == "sleep":
            time.sleep(arguments[0])
        elif name == "crash":
            os._exit(1)
        elif name == "forever":
            while not Path(os.environ["STOPPED"], given["id"]).exists():
                send(sender, text_output="more ", finish_reason="")
                time.sleep(0.02)
    sender.send(flags=final)


def steps(given):
    if "text_input" in given:
        question = given["text_input"]
    else:
        content = given["messages"][-1]["content"]
        question = content if isinstance(content, str) else content[-1]["text"]
    return json.loads(question) if question.startswith("[") else PLAIN


def send(sender, **outputs):
    tensors = [pb_utils.Tensor(name, np.array([text.encode()], dtype=object)) for name, text in outputs.items()]
    sender.send(pb_utils.InferenceResponse(tensors))


def inputs(request):
    """What arrived, in a form that JSON can hold: media as their lengths."""
    given = {"id": request.request_id(), "parameters": json.loads(request.parameters() or "{}")}
    for tensor in request.inputs():
        values = tensor.as_numpy().tolist()
        if tensor.name() in ("video", "image"):
            given[tensor.name()] = [len(value) for value in values]
        elif tensor.name() == "video_uri":
            given[tensor.name()] = [value.decode() for value in values]
        elif tensor.name() == "text_input":
            given[tensor.name()] = values[0].decode()
        elif tensor.name() == "stream":
            given[tensor.name()] = values[0]
        else:
            given[tensor.name()] = json.loads(values[0])
    return given
