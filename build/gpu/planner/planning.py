"""From a model, a profile and a wish to a fit: what fits, what is recommended and why, or what would fit instead."""

from dataclasses import dataclass

from build.gpu.planner.memory import Part, fixed_parts, request_parts
from build.gpu.planner.models import Model
from build.gpu.planner.profiles import ENGINES, Profile, profiles

# One temporal patch a second is 2 frames a second, the reference's rate. 64 tokens are 256x256 pixels or the like.
VIDEO_TOKENS_PER_SECOND = 64
# `<1234.5 seconds><|vision_start|>...<|vision_end|>`: every digit is a token.
TIMESTAMP_TOKENS = 12
# The question, the chat template and the answer.
TEXT_TOKENS = 1024
# Contexts are counted in steps of this many tokens.
CONTEXT_STEP = 1024
# Sessions in the in-flight batch at most.
MAX_BATCH = 64


@dataclass(frozen=True)
class Fit:
    """Settings that fit, and where the memory goes."""

    profile: Profile
    model: Model
    weights: str
    kv_cache: str
    context_tokens: int
    concurrency: int
    parts: tuple[Part, ...]
    """The memory at `context_tokens` x `concurrency`."""
    max_context_tokens: int
    """The longest prompt plus answer of a request alone."""
    max_concurrency: int
    """Requests of `context_tokens` that fit at the same time."""
    reasons: tuple[str, ...]
    """Why these settings, one sentence each."""

    @property
    def used_bytes(self) -> int:
        return sum(part.bytes for part in self.parts)

    @property
    def free_bytes(self) -> int:
        return self.profile.memory_bytes - self.used_bytes

    @property
    def cache_tokens(self) -> int:
        return self.context_tokens * self.concurrency


@dataclass(frozen=True)
class Refusal:
    """Nothing holds what was asked."""

    profile: Profile
    model: Model
    context_tokens: int
    concurrency: int
    needed_bytes: int
    """With the smallest settings."""
    alternatives: tuple[str, ...]
    """What would fit."""


def find_fit(
    profile: Profile,
    model: Model,
    *,
    context_tokens: int | None = None,
    concurrency: int | None = None,
    weights: str | None = None,
    kv_cache: str | None = None,
) -> Fit | Refusal:
    """The fit for a wish; what is None is chosen.

    Precisions start at the profile's defaults and get smaller only as far as needed. ValueError for a wish that makes
    no sense on this profile or model.
    """
    _check(profile, model, context_tokens, concurrency, weights, kv_cache)
    concurrency = concurrency or (profile.defaults.concurrency if context_tokens is None else 1)
    choices = _choices(profile, weights, kv_cache)
    if context_tokens is None:
        context_tokens = _default_context(profile, model, choices, concurrency)
    refused: list[str] = []
    for choice in choices:
        if _needed(profile, model, choice, context_tokens, concurrency) <= profile.memory_bytes:
            return _fit(profile, model, choice, context_tokens, concurrency, refused)
        longest = max_context(profile, model, *choice, concurrency)
        held = f"holds {_tokens(longest)} per request" if longest else "leaves no room for a request"
        refused.append(f"{_name(choice)} {held}")
    return _refusal(profile, model, choices, context_tokens, concurrency)


def max_context(profile: Profile, model: Model, weights: str, kv_cache: str, concurrency: int) -> int:
    """The longest context that `concurrency` requests can have at once, in steps of 1,024 tokens; 0 if none."""
    low, high = 0, model.max_positions // CONTEXT_STEP
    while low < high:
        middle = (low + high + 1) // 2
        if _needed(profile, model, (weights, kv_cache), middle * CONTEXT_STEP, concurrency) <= profile.memory_bytes:
            low = middle
        else:
            high = middle - 1
    return low * CONTEXT_STEP


def max_concurrency(profile: Profile, model: Model, weights: str, kv_cache: str, context_tokens: int) -> int:
    """The number of requests of `context_tokens` that fit at the same time."""
    concurrency = 0
    while (
        _needed(profile, model, (weights, kv_cache), context_tokens, concurrency + 1) <= profile.memory_bytes
        and concurrency < MAX_BATCH
    ):
        concurrency += 1
    return concurrency


def video_seconds(context_tokens: int) -> int:
    """The longest video that a context holds at 2 frames a second and 64 tokens per pair of frames."""
    return max(0, context_tokens - TEXT_TOKENS) // (VIDEO_TOKENS_PER_SECOND + TIMESTAMP_TOKENS)


def _check(
    profile: Profile,
    model: Model,
    context_tokens: int | None,
    concurrency: int | None,
    weights: str | None,
    kv_cache: str | None,
) -> None:
    if context_tokens is not None and not CONTEXT_STEP <= context_tokens <= model.max_positions:
        raise ValueError(
            f"context is {context_tokens}; {model.name} accepts {CONTEXT_STEP} to {model.max_positions} tokens"
        )
    if concurrency is not None and not 1 <= concurrency <= MAX_BATCH:
        raise ValueError(f"concurrency is {concurrency}; 1 to {MAX_BATCH} is accepted")
    for name, value, accepted in (("weights", weights, profile.weights), ("KV cache", kv_cache, profile.kv_cache)):
        if value is not None and value not in accepted:
            raise ValueError(
                f"{name} in {value} do not exist on {profile.name} ({profile.architecture}); accepted are "
                + ", ".join(accepted)
            )


def _choices(profile: Profile, weights: str | None, kv_cache: str | None) -> list[tuple[str, str]]:
    """Precisions to try: the profile's defaults first, then a smaller KV cache, then smaller weights."""

    def ladder(names: tuple[str, ...], default: str, wanted: str | None) -> tuple[str, ...]:
        return (wanted,) if wanted else names[names.index(default) :]

    return [
        (weight, cache)
        for weight in ladder(profile.weights, profile.defaults.weights, weights)
        for cache in ladder(profile.kv_cache, profile.defaults.kv_cache, kv_cache)
    ]


def _default_context(profile: Profile, model: Model, choices: list[tuple[str, str]], concurrency: int) -> int:
    """The profile's default context, or what is left of it where even the smallest settings hold less."""
    longest = max(max_context(profile, model, *choice, concurrency) for choice in choices)
    wanted = min(profile.defaults.context_tokens, model.max_positions)
    return min(wanted, longest) or wanted


def _needed(profile: Profile, model: Model, choice: tuple[str, str], context_tokens: int, concurrency: int) -> int:
    weights, kv_cache = choice
    parts = fixed_parts(profile, model, weights) + request_parts(profile, model, kv_cache, context_tokens, concurrency)
    return sum(part.bytes for part in parts)


def _fit(
    profile: Profile,
    model: Model,
    choice: tuple[str, str],
    context_tokens: int,
    concurrency: int,
    refused: list[str],
) -> Fit:
    weights, kv_cache = choice
    reasons = [f"{_name(choice)} is the first setting that holds {concurrency} x {_tokens(context_tokens)}"]
    if refused:
        reasons.append("too large: " + "; ".join(refused))
    if profile.engine == "tensorrt_llm" and "fp8" not in profile.weights:
        reasons.append(f"{profile.architecture} has no FP8: weights in INT8 or INT4, the KV cache in 16 bits")
    return Fit(
        profile=profile,
        model=model,
        weights=weights,
        kv_cache=kv_cache,
        context_tokens=context_tokens,
        concurrency=concurrency,
        parts=fixed_parts(profile, model, weights)
        + request_parts(profile, model, kv_cache, context_tokens, concurrency),
        max_context_tokens=max_context(profile, model, weights, kv_cache, 1),
        max_concurrency=max_concurrency(profile, model, weights, kv_cache, context_tokens),
        reasons=tuple(reasons),
    )


def _refusal(
    profile: Profile, model: Model, choices: list[tuple[str, str]], context_tokens: int, concurrency: int
) -> Refusal:
    alternatives = []
    for choice in choices:
        together = max_context(profile, model, *choice, concurrency)
        alone = max_context(profile, model, *choice, 1)
        if together:
            alternatives.append(f"{_name(choice)}: {concurrency} x {_tokens(together)}")
        if alone and concurrency > 1:
            alternatives.append(f"{_name(choice)}: one request of {_tokens(alone)}")
    for other in _others(profile):
        where = other.name if other.key != profile.key else f"this card with the engine {other.engine}"
        theirs = _choices(other, None, None)
        fitting = [
            choice
            for choice in theirs
            if _needed(other, model, choice, context_tokens, concurrency) <= other.memory_bytes
        ]
        if fitting:
            alternatives.append(f"{where}, {_name(fitting[0])}: all of it")
        elif other.key == profile.key and (most := max_context(other, model, *theirs[-1], concurrency)):
            alternatives.append(f"{where}, {_name(theirs[-1])}: {concurrency} x {_tokens(most)}")
    return Refusal(
        profile=profile,
        model=model,
        context_tokens=context_tokens,
        concurrency=concurrency,
        needed_bytes=min(_needed(profile, model, choice, context_tokens, concurrency) for choice in choices),
        alternatives=tuple(alternatives),
    )


def _others(profile: Profile) -> list[Profile]:
    """The same card with the other engine, then the other cards."""
    engines = [] if profile.is_cpu else [profile.with_engine(name) for name in ENGINES if name != profile.engine]
    return engines + [other for other in profiles().values() if other.key != profile.key and not other.is_cpu]


def _name(choice: tuple[str, str]) -> str:
    weights, kv_cache = choice
    return f"{weights} weights with a {kv_cache} KV cache"


def _tokens(tokens: int) -> str:
    return f"{tokens:,} tokens"
