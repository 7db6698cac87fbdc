"""How a request wants its answer generated: JSON in, a checked dataclass out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from engines.errors import invalid_argument
from engines.response_format import ResponseFormat, ResponseFormatError, parse_response_format

MAX_STOP_STRINGS = 64
MAX_STOP_STRING_CHARACTERS = 1024


@dataclass(frozen=True)
class SamplingParameters:
    """Semantics of vLLM: penalties, then temperature, min_p, top_k, top_p.

    max_tokens, min_tokens: bounds on generated tokens; stop conditions count from min_tokens on.
    temperature: 0 is greedy. top_k: 0 is off. top_p 1 and min_p 0 are off.
    repetition_penalty: over prompt and answer; presence_penalty, frequency_penalty: over the answer.
    seed: None draws one. stop: strings that end the answer and are not part of it. stop_token_ids: beside eos.
    return_token_ids: adds `token_ids` to usage. response_format: None is free text.
    """

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    return_token_ids: bool = False
    response_format: ResponseFormat | None = None


def parse_sampling_parameters(text: str, defaults: SamplingParameters) -> SamplingParameters:
    """Overrides `defaults` by the JSON object in `text`; an empty text changes nothing.

    Raises invalid_argument for text that is no JSON object, unknown keys, wrong types and values out of range.
    """
    given = _json_object(text)
    unknown = sorted(set(given) - set(_CHECKS))
    if unknown:
        raise invalid_argument(f"sampling_parameters has no {', '.join(unknown)}; accepted are {', '.join(_CHECKS)}")
    parameters = replace(defaults, **{key: _CHECKS[key](key, value) for key, value in given.items()})
    if parameters.min_tokens > parameters.max_tokens:
        raise invalid_argument(
            f"sampling_parameters.min_tokens is {parameters.min_tokens}; at most max_tokens, {parameters.max_tokens},"
            " is accepted"
        )
    if parameters.response_format is not None and (parameters.min_tokens or parameters.ignore_eos):
        raise invalid_argument(
            f"sampling_parameters has a response_format with min_tokens {parameters.min_tokens} and ignore_eos"
            f" {_show(parameters.ignore_eos)}; it decides itself where an answer ends, so 0 and false are accepted"
        )
    return parameters


def _json_object(text: str) -> Mapping[str, Any]:
    if not text.strip():
        return {}
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        if "\\u" in text:
            # Fails for half of a surrogate pair, which is no character.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"sampling_parameters is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise invalid_argument(f"sampling_parameters is {_show(value)}; a JSON object is accepted")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _wrong(key: str, value: Any, accepted: str) -> Exception:
    return invalid_argument(f"sampling_parameters.{key} is {_show(value)}; {accepted} is accepted")


def _integer(low: int, high: int) -> Callable[[str, Any], int]:
    def check(key: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _wrong(key, value, f"an integer from {low} to {high}")
        return value

    return check


def _number(low: float, high: float, *, above: bool = False) -> Callable[[str, Any], float]:
    def check(key: str, value: Any) -> float:
        in_type = type(value) in (int, float) and math.isfinite(value)
        if not in_type or not low <= value <= high or (above and value == low):
            raise _wrong(
                key,
                value,
                f"a number {'above' if above else 'from'} {low:g} {'and at most' if above else 'to'} {high:g}",
            )
        return float(value)

    return check


def _boolean(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, value, "true or false")
    return value


def _stop_strings(key: str, value: Any) -> tuple[str, ...]:
    strings = [value] if isinstance(value, str) else value
    if (
        not isinstance(strings, list)
        or len(strings) > MAX_STOP_STRINGS
        or not all(isinstance(s, str) and 0 < len(s) <= MAX_STOP_STRING_CHARACTERS for s in strings)
    ):
        accepted = (
            f"a string or a list of at most {MAX_STOP_STRINGS}, each of 1 to {MAX_STOP_STRING_CHARACTERS} characters,"
        )
        raise _wrong(key, value, accepted)
    return tuple(strings)


def _token_ids(key: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 1024 or not all(type(i) is int and 0 <= i < 2**31 for i in value):
        raise _wrong(key, value, "a list of at most 1024 token ids")
    return tuple(value)


def _response_format(key: str, value: Any) -> ResponseFormat | None:
    try:
        return parse_response_format(value)
    except ResponseFormatError as error:
        raise invalid_argument(f"sampling_parameters.{key} is {_show(value)}; {error}") from None


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "max_tokens": _integer(1, 2**31 - 1),
    "min_tokens": _integer(0, 2**31 - 1),
    "temperature": _number(0, 100),
    "top_p": _number(0, 1, above=True),
    "top_k": _integer(-1, 2**31 - 1),
    "min_p": _number(0, 1),
    "seed": _integer(-(2**63), 2**64 - 1),
    "stop": _stop_strings,
    "stop_token_ids": _token_ids,
    "repetition_penalty": _number(0.01, 10),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "ignore_eos": _boolean,
    "skip_special_tokens": _boolean,
    "return_token_ids": _boolean,
    "response_format": _response_format,
}
assert list(_CHECKS) == [field.name for field in fields(SamplingParameters)]
