"""The parameters of config.pbtxt, checked once at start."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ENGINES = ("pytorch", "tensorrt_llm")
WEIGHTS = ("auto", "int8", "int4")
DTYPES = ("auto", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Settings:
    """See config.pbtxt for what each one means. None stands for an empty value: chosen at start."""

    checkpoint: Path
    engine: str
    device: str
    dtype: str
    weights: str
    yarn_factor: float | None
    kv_cache_dtype: str
    kv_cache_tokens: int | None
    block_size: int
    prefix_cache: bool
    decode_graphs: bool
    context_length: int | None
    max_step_tokens: int
    max_batch: int
    owner_share: float
    max_waiting: int
    chunks_in_flight: int
    credits_directory: Path
    silence_seconds: float
    default_max_tokens: int
    max_generation_seconds: float
    threads: int


def read_settings(parameters: Mapping[str, str], version_folder: Path) -> Settings:
    """Settings from the parameters' strings. Raises ValueError naming the parameter, its value and what is accepted."""
    read = _Reader(parameters)
    settings = Settings(
        checkpoint=version_folder / read.text("checkpoint"),
        engine=read.choice("engine", ENGINES),
        device=read.text("device"),
        dtype=read.choice("dtype", DTYPES),
        weights=read.choice("weights", WEIGHTS),
        yarn_factor=read.optional_number("yarn_factor", 1),
        kv_cache_dtype=read.choice("kv_cache_dtype", (*DTYPES, "int8")),
        kv_cache_tokens=read.optional_integer("kv_cache_tokens", 1),
        block_size=read.integer("block_size", 1),
        prefix_cache=read.flag("prefix_cache"),
        decode_graphs=read.flag("decode_graphs"),
        context_length=read.optional_integer("context_length", 1),
        max_step_tokens=read.integer("max_step_tokens", 2),
        max_batch=read.integer("max_batch", 1),
        owner_share=read.share("owner_share"),
        max_waiting=read.integer("max_waiting", 0),
        chunks_in_flight=read.integer("chunks_in_flight", 1),
        credits_directory=_credits_directory(parameters.get("credits_directory", "")),
        silence_seconds=read.seconds("silence_seconds"),
        default_max_tokens=read.integer("default_max_tokens", 1),
        max_generation_seconds=read.seconds("max_generation_seconds"),
        threads=read.integer("threads", 0),
    )
    if settings.max_step_tokens <= settings.max_batch:
        # Otherwise decode steps could use up every step's tokens, and a prompt would never be prefilled.
        raise ValueError(
            f"parameter max_step_tokens is {settings.max_step_tokens}; more than max_batch, {settings.max_batch},"
            " is accepted"
        )
    return settings


def _credits_directory(value: str) -> Path:
    return Path(value) if value else Path(tempfile.gettempdir()) / f"qwen3_vl_credits_{os.getuid()}"


@dataclass(frozen=True)
class _Reader:
    parameters: Mapping[str, str]

    def text(self, name: str) -> str:
        value = self.parameters.get(name, "").strip()
        if not value:
            raise ValueError(f"parameter {name} is empty; a value is needed")
        return value

    def choice(self, name: str, accepted: tuple[str, ...]) -> str:
        value = self.text(name)
        if value not in accepted:
            raise ValueError(f"parameter {name} is {value!r}; accepted are {', '.join(accepted)}")
        return value

    def flag(self, name: str) -> bool:
        return self.choice(name, ("true", "false")) == "true"

    def integer(self, name: str, low: int) -> int:
        value = self.text(name)
        if not value.isascii() or not value.isdigit() or int(value) < low:
            raise ValueError(f"parameter {name} is {value!r}; an integer of at least {low} is accepted")
        return int(value)

    def optional_integer(self, name: str, low: int) -> int | None:
        return self.integer(name, low) if self.parameters.get(name, "").strip() else None

    def optional_number(self, name: str, low: float) -> float | None:
        if not self.parameters.get(name, "").strip():
            return None
        number = self._number(name)
        if not low <= number < float("inf"):
            raise ValueError(f"parameter {name} is {self.text(name)!r}; a number of at least {low:g} is accepted")
        return number

    def seconds(self, name: str) -> float:
        seconds = self._number(name)
        if not 0 < seconds < float("inf"):
            raise ValueError(f"parameter {name} is {self.text(name)!r}; a number of seconds above 0 is accepted")
        return seconds

    def share(self, name: str) -> float:
        share = self._number(name)
        if not 0 < share <= 1:
            raise ValueError(f"parameter {name} is {self.text(name)!r}; a number above 0 and at most 1 is accepted")
        return share

    def _number(self, name: str) -> float:
        try:
            return float(self.text(name))
        except ValueError:
            return float("nan")
