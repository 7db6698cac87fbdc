"""Checks JSON values against a model's own configuration: Triton would answer a wrong one with error 500."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from build.serve.gate.envelope import RefusedError

_TYPES: Mapping[str, tuple[type, str, str]] = {
    "TYPE_STRING": (str, "a string", "strings"),
    "TYPE_BOOL": (bool, "true or false", "these"),
}
_SHOWN_CHARACTERS = 100


class Inputs:
    """Those of a model, from its configuration as Triton tells it over HTTP."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        self._inputs = {tensor["name"]: tensor for tensor in configuration["input"]}

    def check(self, document: Mapping[str, object]) -> None:
        """Raises RefusedError for a value that its input does not take. Names of no input are request parameters."""
        request_id = document.get("id", "")
        _require(isinstance(request_id, str), "id", request_id, "a string is accepted")
        parameters: Any = document.get("parameters", {})
        _require(isinstance(parameters, dict), "parameters", parameters, "an object is accepted")
        # Triton takes what is in the parameters as if it stood beside them.
        for values in (document, parameters):
            for name in values.keys() & self._inputs:
                _check_input(self._inputs[name], values[name])


def _check_input(tensor: Mapping[str, Any], value: object) -> None:
    if tensor["data_type"] not in _TYPES:
        return
    kind, one, many = _TYPES[tensor["data_type"]]
    is_list = tensor["dims"] == [-1]
    values = value if isinstance(value, list) else [value]
    fits = all(type(each) is kind for each in values) and (is_list or len(values) == 1)
    _require(fits, tensor["name"], value, f"{one} is accepted, or a list of {many if is_list else 'one'}")


def _require(holds: bool, name: str, value: object, accepted: str) -> None:
    if holds:
        return
    shown = json.dumps(value, ensure_ascii=False)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}…"
    raise RefusedError(f"{name!r} is {shown}; {accepted}")
