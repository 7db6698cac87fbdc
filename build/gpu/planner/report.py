"""Plans as text for a terminal and as a table for documentation."""

from build.gpu.planner.models import Model
from build.gpu.planner.planning import Plan, Refusal, make_plan, max_concurrency, max_context, video_seconds
from build.gpu.planner.profiles import Profile

GIB = 2**30


def describe(plan: Plan | Refusal) -> str:
    """A plan or a refusal in lines for a terminal."""
    return _describe_plan(plan) if isinstance(plan, Plan) else _describe_refusal(plan)


def table(profiles: list[Profile], models: list[Model]) -> str:
    """A Markdown table: the recommended settings of each profile and size, and what they hold."""
    lines = [
        "| GPU | model | weights, KV cache | longest context | video at 2 frames/s | requests at once"
        " | longest with the PyTorch engine |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for profile in profiles:
        for model in models:
            plan = make_plan(profile, model)
            if isinstance(plan, Refusal):
                missing = _gib(plan.needed_bytes - profile.memory_bytes)
                cells = ["does not fit", f"{missing} too much", "-", "-"]
            else:
                cells = [
                    f"{plan.weights}, {plan.kv_cache}",
                    f"{plan.max_context_tokens:,}",
                    _duration(video_seconds(plan.max_context_tokens)),
                    f"{plan.max_concurrency} x {plan.context_tokens:,}",
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


def _describe_plan(plan: Plan) -> str:
    lines = [
        f"{plan.model.name} on {plan.profile.name} ({plan.profile.architecture}, {_gib(plan.profile.memory_bytes)})",
        "",
        f"  engine {plan.profile.engine}, weights {plan.weights}, KV cache {plan.kv_cache},"
        f" vision tower {plan.profile.vision}",
        f"  context {plan.context_tokens:,} tokens, {plan.concurrency} at once",
        "",
    ]
    lines += [f"  {part.name:28}{_gib(part.bytes):>12}{'' if part.exact else '  at most'}" for part in plan.parts]
    lines += [f"  {'left':28}{_gib(plan.free_bytes):>12}", ""]
    lines += [
        f"  longest context of one request: {plan.max_context_tokens:,} tokens, "
        f"{_duration(video_seconds(plan.max_context_tokens))} of video at 2 frames/s and 64 tokens per pair",
        f"  requests of {plan.context_tokens:,} tokens at once: {plan.max_concurrency}",
    ]
    lines += [f"  why: {reason}" for reason in plan.reasons]
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
