"""The plan of a request: what is looked at, and the whole prompt, before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from preprocess.cache.cached import recall_video
from preprocess.errors import InvalidArgumentError
from preprocess.images.sizes import ImageSizes
from preprocess.media.library import Library
from preprocess.media.video import Video
from preprocess.plan.captions import with_lines
from preprocess.plan.prompt import Prompt, PromptWriter
from preprocess.plan.selection import LEAST_TOKENS_PER_FRAME, Look, look_at_image, look_at_video
from preprocess.request.request import Request
from preprocess.settings import Settings

ANSWER_TOKENS = 1024
"""Left free for the answer when videos are fitted into the context; of a context below 8192 tokens, an eighth."""


@dataclass(frozen=True, eq=False)
class Plan:
    prompt: Prompt
    looks: tuple[Look, ...]
    wanted_tokens: int
    """What the prompt would have if the context had room for it."""

    def summary(self, settings: Settings) -> dict[str, Any]:
        """The plan as stage 3 gets it, in the chunk header; grids in patches."""
        merge = settings.patching.merge
        return {
            "prompt_tokens": len(self.prompt.token_ids),
            "video_tokens": self.prompt.visual_tokens,
            "next_position": self.prompt.next_position,
            "media": [_medium(look, merge) for look in self.looks],
        }


def _medium(look: Look, merge: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "kind": look.medium.kind,
        "grid": [look.temporal_patches, look.medium.rows * merge, look.medium.columns * merge],
        "timestamps": [float(f"{seconds:.1f}") for seconds in look.medium.timestamps],
    }
    if look.video is not None and look.video.lines:
        told["lines"] = {"shown": len(look.medium.lines), "left_out": look.lines_left_out}
    if look.video is not None and look.video.timeline.broken_off:
        told["broken_off"] = look.video.timeline.broken_off
    return told


def make_plan(
    request: Request, settings: Settings, writer: PromptWriter, library: Library, interrupt: Callable[[], None]
) -> Plan:
    """Opens the media and decides what is looked at; raises InvalidArgumentError if the context is too short for it."""
    writer.check_text(request.messages)
    options = request.video_options
    context_length = min(options.context_length or settings.context_length, settings.context_length)
    looks: list[Look] = []
    sizes = ImageSizes(library, interrupt)
    for attachment in request.media:
        interrupt()
        if attachment.kind == "image":
            looks.append(look_at_image(attachment, sizes.read(attachment), settings))
        else:
            closer = options.sampler == "adaptive"
            video = recall_video(attachment, library, closer=closer, subtitles=options.subtitles, interrupt=interrupt)
            looks.append(look_at_video(video, options, settings, question=request.question))
    plan = _write(request, writer, with_lines(looks, options, context_length, writer))
    room = context_length - min(ANSWER_TOKENS, context_length // 8)
    if len(plan.prompt.token_ids) > room and options.max_video_tokens is None:
        plan = _fit(request, plan, room, settings, writer)
    tokens = len(plan.prompt.token_ids)
    if tokens >= context_length:
        raise InvalidArgumentError(
            f"the prompt has {tokens} tokens, {plan.prompt.visual_tokens} of them visual;"
            f" fewer than the context length of {context_length} are accepted"
        )
    return plan


def _write(request: Request, writer: PromptWriter, looks: Sequence[Look]) -> Plan:
    prompt = writer.write(request.messages, [look.medium for look in looks])
    return Plan(prompt, tuple(looks), wanted_tokens=len(prompt.token_ids))


def _fit(request: Request, plan: Plan, room: int, settings: Settings, writer: PromptWriter) -> Plan:
    """Shows less of the videos, each in proportion, until the prompt has at most `room` tokens or nothing is left."""
    overheads = [0 if look.video is None else _timestamp_tokens(look.video, writer) for look in plan.looks]
    needs = [
        0 if look.video is None else look.tokens + look.temporal_patches * overhead
        for look, overhead in zip(plan.looks, overheads, strict=True)
    ]
    available = room - (len(plan.prompt.token_ids) - sum(needs))
    first = plan
    # Sizes come in steps and timestamps in lengths, so that the first try may miss by a little.
    while len(plan.prompt.token_ids) > room and available > 0:
        looks = list(first.looks)
        for index, (look, overhead, need) in enumerate(zip(first.looks, overheads, needs, strict=True)):
            if look.video is None:
                continue
            share = available * need // sum(needs)
            patches = max(min(look.temporal_patches, share // (LEAST_TOKENS_PER_FRAME + overhead)), 1)
            smaller = look_at_video(
                look.video,
                request.video_options,
                settings,
                question=request.question,
                max_tokens=max(share - patches * overhead, 1),
                max_temporal_patches=patches,
            )
            looks[index] = replace(
                look,
                size=smaller.size,
                medium=replace(smaller.medium, lines=look.medium.lines),
                indices=smaller.indices,
            )
        plan = _write(request, writer, looks)
        available = available * 9 // 10
    return replace(plan, wanted_tokens=first.wanted_tokens)


def _timestamp_tokens(video: Video, writer: PromptWriter) -> int:
    """Tokens that a temporal patch has beside its visual ones; a late timestamp has the most."""
    (tokens,) = writer.count_tokens([writer.timestamp_text(video.timeline.end_seconds)])
    return tokens - 1
