"""Plans as text for a terminal and as a table for documentation."""

from build.gpu.planner.models import Model
from build.gpu.planner.planning import Fit, Refusal, find_fit, max_concurrency, max_context, video_seconds
from build.gpu.planner.profiles import Profile

GIB = 2**30


def describe(fit: Fit | Refusal) -> str:
    """A plan or a refusal in lines for a terminal."""
    return _describe_fit(fit) if isinstance(fit, Fit) else _describe_refusal(fit)


def table(profiles: list[Profile], models: list[Model]) -> str:
    """A Markdown table: the recommended settings of each profile and size, and what they hold."""
    lines = [
        "| GPU | model | weights, KV cache | longest context | video at 2 frames/s | requests at once"
        " | longest with the PyTorch engine |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for profile in profiles:
        for model in models:
            fit = find_fit(profile, model)
            if isinstance(fit, Refusal):
                missing = _gib(fit.needed_bytes - profile.memory_bytes)
                cells = ["does not fit", f"{missing} too much", "-", "-"]
            else:
                cells = [
                    f"{fit.weights}, {fit.kv_cache}",
                    f"{fit.max_context_tokens:,}",
                    _duration(video_seconds(fit.max_context_tokens)),
                    f"{fit.max_concurrency} x {fit.context_tokens:,}",
                ]
            cells.append(_longest_with_pytorch(profile, model))
            lines.append(f"| {profile.name} | {model.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def precision_table(profile: Profile, model: Model) -> str:
    """A Markdown table: every precision that exists on the profile, and what it holds."""
    lines = [
        "| weights | KV cache | longest context | requests of half of it |",
        "| --- | --- | --- | --- |",
    ]
    for weights in profile.weights:
        for kv_cache in profile.kv_cache:
            longest = max_context(profile, model, weights, kv_cache, 1)
            half = max_concurrency(profile, model, weights, kv_cache, longest // 2) if longest else 0
            lines.append(f"| {weights} | {kv_cache} | {longest:,} | {half} |")
    return "\n".join(lines)


def _longest_with_pytorch(profile: Profile, model: Model) -> str:
    """The longest context with its smallest precisions, where it is not the profile's engine."""
    if profile.is_cpu:
        return "-"
    pytorch = profile.with_engine("pytorch")
    longest = max_context(pytorch, model, pytorch.weights[-1], pytorch.kv_cache[-1], 1)
    return f"{longest:,}" if longest else "-"


def _describe_fit(fit: Fit) -> str:
    lines = [
        f"{fit.model.name} on {fit.profile.name} ({fit.profile.architecture}, {_gib(fit.profile.memory_bytes)})",
        "",
        f"  engine {fit.profile.engine}, weights {fit.weights}, KV cache {fit.kv_cache},"
        f" vision tower {fit.profile.vision}",
        f"  context {fit.context_tokens:,} tokens, {fit.concurrency} at once",
        "",
    ]
    lines += [f"  {part.name:28}{_gib(part.bytes):>12}{'' if part.exact else '  at most'}" for part in fit.parts]
    lines += [f"  {'left':28}{_gib(fit.free_bytes):>12}", ""]
    lines += [
        f"  longest context of one request: {fit.max_context_tokens:,} tokens, "
        f"{_duration(video_seconds(fit.max_context_tokens))} of video at 2 frames/s and 64 tokens per pair",
        f"  requests of {fit.context_tokens:,} tokens at once: {fit.max_concurrency}",
    ]
    lines += [f"  why: {reason}" for reason in fit.reasons]
    return "\n".join(lines)


def _describe_refusal(refusal: Refusal) -> str:
    lines = [
        f"{refusal.model.name} does not fit {refusal.profile.name}: {refusal.concurrency} x "
        f"{refusal.context_tokens:,} tokens need {_gib(refusal.needed_bytes)} with the smallest settings, "
        f"and there are {_gib(refusal.profile.memory_bytes)}",
        "  what would fit:",
    ]
    lines += [f"    {alternative}" for alternative in refusal.alternatives or ("a smaller model only",)]
    return "\n".join(lines)


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB"


def _duration(seconds: int) -> str:
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min" if seconds >= 3600 else f"{seconds // 60} min"
