"""JSON to sampling parameters: what is taken, and what is said about the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engines.checkpoint import read_generation_config
from engines.errors import RequestError
from engines.sampling_parameters import SamplingParameters, parse_sampling_parameters

DEFAULTS = SamplingParameters(max_tokens=512, temperature=0.7, top_k=20)


def test_nothing_given_leaves_the_defaults() -> None:
    assert parse_sampling_parameters("", DEFAULTS) == DEFAULTS
    assert parse_sampling_parameters("{}", DEFAULTS) == DEFAULTS


def test_every_key_is_taken() -> None:
    given = {
        "max_tokens": 7,
        "min_tokens": 2,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": -1,
        "min_p": 0.1,
        "seed": 12,
        "stop": ["a", "停"],
        "stop_token_ids": [3],
        "repetition_penalty": 1.1,
        "presence_penalty": -1,
        "frequency_penalty": 0.5,
        "ignore_eos": True,
        "skip_special_tokens": False,
        "return_token_ids": True,
    }
    expected = SamplingParameters(**{**given, "stop": ("a", "停"), "stop_token_ids": (3,)})
    assert parse_sampling_parameters(json.dumps(given), DEFAULTS) == expected
    assert parse_sampling_parameters('{"stop": "end"}', DEFAULTS).stop == ("end",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "sampling_parameters is not JSON"),
        ("[1]", r"sampling_parameters is \[1\]; a JSON object is accepted"),
        ('{"temprature": 1, "n": 2}', "has no n, temprature; accepted are max_tokens, min_tokens, temperature"),
        ('{"max_tokens": 0}', "max_tokens is 0; an integer from 1 to"),
        ('{"max_tokens": true}', "max_tokens is true; an integer"),
        ('{"max_tokens": 2.0}', "max_tokens is 2.0; an integer"),
        ('{"temperature": NaN}', "NaN is not a JSON number"),
        ('{"temperature": 1e999}', "temperature is Infinity; a number from 0 to 100"),
        ('{"temperature": -0.1}', "temperature is -0.1; a number from 0 to 100"),
        ('{"temperature": false}', "temperature is false; a number"),
        ('{"top_p": 0}', "top_p is 0; a number above 0 and at most 1"),
        ('{"top_p": 1.01}', "top_p is 1.01; a number above 0 and at most 1"),
        ('{"min_p": null}', "min_p is null; a number from 0 to 1"),
        ('{"stop": [""]}', r'stop is \[""\]; a string or a list'),
        ('{"stop": 3}', "stop is 3; a string or a list"),
        ('{"stop_token_ids": [true]}', "stop_token_ids is .*; a list of at most 1024 token ids"),
        ('{"ignore_eos": 1}', "ignore_eos is 1; true or false is accepted"),
        ('{"min_tokens": 600}', "min_tokens is 600; at most max_tokens, 512, is accepted"),
        ("[" * 100_000, "sampling_parameters is not JSON"),
    ],
)
def test_mistakes_are_told_with_the_value_and_what_is_accepted(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as raised:
        parse_sampling_parameters(text, DEFAULTS)
    assert str(raised.value).startswith("invalid_argument: ")


def test_defaults_come_from_the_checkpoint(tmp_path: Path) -> None:
    def written(**config: object) -> SamplingParameters:
        (tmp_path / "generation_config.json").write_text(json.dumps(config))
        return read_generation_config(tmp_path, 99).defaults

    assert written(do_sample=True, temperature=0.7, top_p=0.8, top_k=20) == SamplingParameters(
        max_tokens=99, temperature=0.7, top_p=0.8, top_k=20
    )
    assert written(temperature=0.7, top_k=20, repetition_penalty=1.2) == SamplingParameters(
        max_tokens=99, repetition_penalty=1.2
    )
    assert written(do_sample=True).temperature == 1.0
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 5}')
    assert read_generation_config(tmp_path, 99).eos_token_ids == (5,)
