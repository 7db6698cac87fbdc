"""GPU profiles: `profiles.json` says what each card has and can do; this reads and checks it."""

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

MIB = 2**20

PRECISIONS = ("fp32", "bf16", "int8", "fp8", "int4", "int4_awq")
ENGINES = ("tensorrt_llm", "pytorch")

# The PyTorch engine rounds a checkpoint to these on any GPU; its weights of 8 bits are slower there than those of 16.
PYTORCH_WEIGHTS = ("bf16", "int4")
PYTORCH_KV_CACHE = ("bf16", "int8")


@dataclass(frozen=True)
class Defaults:
    """The wish where the caller asks for nothing else."""

    weights: str
    kv_cache: str
    context_tokens: int
    concurrency: int


@dataclass(frozen=True)
class Profile:
    """A kind of GPU."""

    key: str
    name: str
    compute_capability: str
    """`MAJOR.MINOR`; empty for `cpu`."""
    memory_mib: int
    """CUDA offers so much to programs, less than the figure on the box; for `cpu`, main memory."""
    engine: str
    """Stage 3's engine, `tensorrt_llm` or `pytorch`."""
    weights: tuple[str, ...]
    """The engine's precisions of the weights, best first."""
    kv_cache: tuple[str, ...]
    """The engine's precisions of the KV cache, best first."""
    vision: str
    """The precision of the vision tower."""
    chunk_tokens: int
    """One chunk has at most so many visual tokens; a larger picture is a chunk of its own."""
    max_frame_tokens: int
    """The largest picture, in visual tokens, that the vision tower is built for."""
    max_step_tokens: int
    """Tokens of one engine step."""
    defaults: Defaults

    def with_engine(self, engine: str) -> "Profile":
        """The same card with another engine in stage 3, and the precisions that that one has.

        ValueError for an unknown engine, and for TensorRT-LLM without a GPU.
        """
        if engine not in ENGINES or (self.is_cpu and engine != self.engine):
            accepted = (self.engine,) if self.is_cpu else ENGINES
            raise ValueError(f"engine {engine!r} does not exist on {self.name}; accepted are {', '.join(accepted)}")
        if engine == self.engine:
            return self
        return replace(
            self,
            engine=engine,
            weights=PYTORCH_WEIGHTS,
            kv_cache=PYTORCH_KV_CACHE,
            defaults=replace(self.defaults, weights=PYTORCH_WEIGHTS[0], kv_cache=PYTORCH_KV_CACHE[0]),
        )

    @property
    def memory_bytes(self) -> int:
        return self.memory_mib * MIB

    @property
    def is_cpu(self) -> bool:
        return not self.compute_capability

    @property
    def architecture(self) -> str:
        """As NVIDIA's tools write it: `sm_89`."""
        return "sm_" + self.compute_capability.replace(".", "") if self.compute_capability else "cpu"


@cache
def profiles() -> dict[str, Profile]:
    """All profiles by key, in the file's order."""
    entries = json.loads((Path(__file__).parent / "profiles.json").read_text())
    return {key: _profile(key, entry) for key, entry in entries.items()}


def find_profile(key: str) -> Profile:
    """The profile called `key`; ValueError lists the known ones."""
    try:
        return profiles()[key]
    except KeyError:
        raise ValueError(f"GPU {key!r} has no profile; known are {', '.join(profiles())}") from None


def _profile(key: str, entry: dict[str, Any]) -> Profile:
    defaults = Defaults(**entry["defaults"])
    lists = {name: tuple(entry[name]) for name in ("weights", "kv_cache")}
    for name, precisions in lists.items():
        unknown = set(precisions) - set(PRECISIONS)
        if unknown:
            raise ValueError(f"profile {key}: {name} names {sorted(unknown)}; known are {', '.join(PRECISIONS)}")
        if getattr(defaults, name) not in precisions:
            raise ValueError(
                f"profile {key}: the default {name} {getattr(defaults, name)} is not among its own {precisions}"
            )
    return Profile(key=key, **{**entry, **lists, "defaults": defaults})
