"""Triton's own account of a run: its Prometheus counters before and after."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from build.serve.server.triton import ENSEMBLE

_LINE = re.compile(r"^(\w+)\{([^}]*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Counters:
    """Counters by (name, model); those of several reasons are added up."""

    values: Mapping[tuple[str, str], float]

    def __sub__(self, before: Counters) -> Counters:
        return Counters({key: value - before.values.get(key, 0.0) for key, value in self.values.items()})

    def succeeded(self, model: str = ENSEMBLE) -> int:
        return int(self.values.get(("nv_inference_request_success", model), 0))

    def failed(self, model: str = ENSEMBLE) -> int:
        return int(self.values.get(("nv_inference_request_failure", model), 0))

    def mean_seconds(self, model: str = ENSEMBLE) -> float:
        """Mean time of a request from arrival to last response."""
        total_us = self.values.get(("nv_inference_request_duration_us", model), 0.0)
        return total_us / 1e6 / max(1, self.succeeded(model))


def parse_counters(text: str) -> Counters:
    """Reads the Prometheus text format's lines that have a model."""
    values: dict[tuple[str, str], float] = {}
    for line in text.splitlines():
        if match := _LINE.match(line):
            labels = dict(_LABEL.findall(match[2]))
            if "model" in labels:
                key = (match[1], labels["model"])
                values[key] = values.get(key, 0.0) + float(match[3])
    return Counters(values)


def parse_blocks_held(text: str) -> int:
    """KV blocks that requests hold; what is only kept for later prompts is not among them."""
    return int(_value(text, "qwen3_vl_kv_blocks", state="reserved"))


def parse_decoded_tokens(text: str) -> int:
    """Tokens of all answers since the server's start."""
    return int(_value(text, "qwen3_vl_tokens_total", phase="decode"))


def _value(text: str, name: str, **label: str) -> float:
    for line in text.splitlines():
        match = _LINE.match(line)
        if match and match[1] == name and label.items() <= dict(_LABEL.findall(match[2])).items():
            return float(match[3])
    raise ValueError(f"the decoder has no {name} on the metrics port")


def read_counters(url: str) -> Counters:
    """The counters now, of the metrics endpoint `http://host:port`."""
    return parse_counters(read_metrics(url))


def read_metrics(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        text: str = response.read().decode()
        return text
