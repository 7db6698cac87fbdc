"""Lets the inference requests through that clients need, with tensors that are what they claim to be.

A shape that overflows, or that its content does not fill, ends the process of NVIDIA's Python backend before a stage
sees it. So every size is computed here, in integers without bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from build.serve.gate.envelope import RefusedError, open_envelope
from build.serve.server.triton import ENSEMBLE

MAX_INPUTS = 64
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 2**26
# Of a request: strings are looked at one by one.
MAX_STRINGS = 4096
MAX_NAME = 256

_ELEMENT_BYTES = {
    **{"BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8},
    **{"INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8},
    **{"FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8},
}
# The field of InferTensorContents that has the elements of a type; those of half a float have none.
_CONTENTS = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    **{"BOOL": "bool_contents", "INT64": "int64_contents", "UINT64": "uint64_contents"},
    **{"FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"},
}
_SHARED_MEMORY = "shared_memory"


def check(message: bytes) -> Any:
    """The request in `message`, a ModelInferRequest without its raw contents. Raises RefusedError."""
    envelope = open_envelope(message)
    try:
        _check(envelope.head, envelope.raw_contents)
    except RefusedError as error:
        error.request_id = envelope.head.id[:MAX_NAME]
        raise
    return envelope.head


def _check(request: Any, raw_contents: Sequence[memoryview]) -> None:
    _check_names(request)
    if raw_contents and len(raw_contents) != len(request.inputs):
        raise RefusedError(
            f"raw_input_contents has {len(raw_contents)} entries and there are {len(request.inputs)} inputs: one each"
            " is accepted, or none"
        )
    strings = 0
    for place, tensor in enumerate(request.inputs):
        elements = _elements(tensor.name, tensor.datatype, tensor.shape)
        if tensor.datatype == "BYTES":
            strings += elements
        if strings > MAX_STRINGS:
            raise RefusedError(f"the request has more than {MAX_STRINGS:,} strings, the most accepted")
        if raw_contents:
            if tensor.HasField("contents"):
                raise RefusedError(f"the input {tensor.name!r} has contents beside raw_input_contents")
            _check_raw(tensor, elements, raw_contents[place])
        else:
            _check_contents(tensor, elements)
    _check_model(request)


def _check_names(request: Any) -> None:
    if not 0 < len(request.model_name) <= MAX_NAME or len(request.model_version) > MAX_NAME:
        raise RefusedError(f"model_name and model_version have at most {MAX_NAME} characters, and a name at least one")
    if len(request.id) > MAX_NAME:
        raise RefusedError(f"the id has {len(request.id)} characters; at most {MAX_NAME} are accepted")
    for kind, tensors in (("inputs", request.inputs), ("outputs", request.outputs)):
        if len(tensors) > MAX_INPUTS:
            raise RefusedError(f"there are {len(tensors)} {kind}; at most {MAX_INPUTS} are accepted")
        for tensor in tensors:
            if len(tensor.name) > MAX_NAME:
                raise RefusedError(f"a name in {kind} has more than {MAX_NAME} characters")
            # None is of use here, and `classification` of a text ends Triton 2.51.
            for name in tensor.parameters:
                raise RefusedError(
                    f"{kind} {tensor.name!r} has the parameter {name[:MAX_NAME]!r}; tensors without parameters are"
                    " accepted, and none in shared memory"
                )
    if len(request.parameters) > MAX_INPUTS:
        raise RefusedError(f"the request has {len(request.parameters)} parameters; at most {MAX_INPUTS} are accepted")
    for name in request.parameters:
        if len(name) > MAX_NAME:
            raise RefusedError(f"the request has a parameter's name of more than {MAX_NAME} characters")
        if _SHARED_MEMORY in name:
            raise RefusedError(f"the request has the parameter {name}: tensors in shared memory are not accepted")


def _elements(name: str, datatype: str, shape: Sequence[int]) -> int:
    if datatype != "BYTES" and datatype not in _ELEMENT_BYTES:
        accepted = ", ".join(("BYTES", *_ELEMENT_BYTES))
        raise RefusedError(f"the input {name!r} has the datatype {datatype[:MAX_NAME]!r}; {accepted} are accepted")
    if len(shape) > MAX_DIMENSIONS:
        raise RefusedError(f"the input {name!r} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are accepted")
    bound = MAX_STRINGS if datatype == "BYTES" else MAX_ELEMENTS
    elements = extent = 1
    for dimension in shape:
        elements *= dimension
        # A dimension of 0 hides from the product that the others overflow; NumPy multiplies them all the same.
        extent *= dimension or 1
        if dimension < 0 or extent > bound:
            raise RefusedError(
                f"the input {name!r} has the shape {list(shape)}; dimensions from 0 are accepted, whose product is at"
                f" most {bound:,} for {datatype}"
            )
    return elements


def _check_raw(tensor: Any, elements: int, content: memoryview) -> None:
    if tensor.datatype == "BYTES":
        _check_strings(tensor, elements, content)
        return
    wanted = elements * _ELEMENT_BYTES[tensor.datatype]
    if len(content) != wanted:
        raise RefusedError(
            f"the input {tensor.name!r} has {len(content):,} bytes; {tensor.datatype} {list(tensor.shape)} has"
            f" {wanted:,}"
        )


def _check_strings(tensor: Any, elements: int, content: memoryview) -> None:
    """Each string follows its length, of four bytes."""
    at = 0
    for _ in range(elements):
        at += 4 + int.from_bytes(content[at : at + 4], "little")
        if at > len(content):
            break
    if at != len(content):
        raise RefusedError(
            f"the input {tensor.name!r} has {len(content):,} bytes, which are not the {elements} strings of its shape,"
            " each after its length of four bytes"
        )


def _check_contents(tensor: Any, elements: int) -> None:
    wanted = _CONTENTS.get(tensor.datatype)
    given = {field.name: len(values) for field, values in tensor.contents.ListFields()}
    if given != ({wanted: elements} if elements else {}):
        where = f"{elements} values in contents.{wanted}" if wanted else "raw_input_contents"
        raise RefusedError(
            f"the input {tensor.name!r} has {given or 'no contents'}; {tensor.datatype} {list(tensor.shape)} has"
            f" {where}"
        )


def _check_model(request: Any) -> None:
    model = request.model_name
    tensors = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in request.inputs]
    if model == "decoder":
        if tensors != [("stop", "BOOL", [1])]:
            raise RefusedError("of the model decoder clients may ask with the input stop, BOOL [1], and nothing else")
    elif model == "video_preprocess":
        if not request.parameters["look"].bool_param or any(
            (datatype, shape) != ("BOOL", [1]) for _, datatype, shape in tensors if datatype != "BYTES"
        ):
            raise RefusedError(
                "of the model video_preprocess clients may ask with the parameter look = true and the inputs of"
                f" {ENSEMBLE}, BYTES and BOOL [1]"
            )
    elif model != ENSEMBLE:
        raise RefusedError(
            f"the model {model!r} is closed to clients: {ENSEMBLE} is open, decoder with the input stop, and"
            " video_preprocess with the parameter look"
        )
