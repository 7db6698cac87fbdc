"""The plan of a request: what is looked at, and the whole prompt, before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from preprocess.errors import InvalidArgumentError
from preprocess.media.attachment import Attachment
from preprocess.media.video import Video
from preprocess.plan.captions import with_lines
from preprocess.plan.prompt import Prompt, PromptWriter
from preprocess.plan.selection import LEAST_TOKENS_PER_FRAME, Selection, select_image, select_video
from preprocess.request.request import Request
from preprocess.settings import Settings
from preprocess.workers.reader import Reader

ANSWER_TOKENS = 1024
"""Left free for the answer when videos are fitted into the context; of a context below 8192 tokens, an eighth."""


@dataclass(frozen=True, eq=False)
class Plan:
    prompt: Prompt
    selections: tuple[Selection, ...]
    wanted_tokens: int
    """The tokens that the prompt would have if the context had room for them."""

    def summary(self, settings: Settings) -> dict[str, Any]:
        """The plan as stage 3 gets it, in the chunk header; grids in patches."""
        merge = settings.patching.merge
        return {
            "prompt_tokens": len(self.prompt.token_ids),
            "video_tokens": self.prompt.visual_tokens,
            "next_position": self.prompt.next_position,
            "media": [_medium(selection, merge) for selection in self.selections],
        }


def _medium(selection: Selection, merge: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "kind": selection.medium.kind,
        "grid": [selection.temporal_patches, selection.medium.rows * merge, selection.medium.columns * merge],
        "timestamps": [float(f"{seconds:.1f}") for seconds in selection.medium.timestamps],
    }
    if selection.video is not None and selection.video.lines:
        told["lines"] = {"shown": len(selection.medium.lines), "left_out": selection.lines_left_out}
    if selection.video is not None and selection.video.timeline.broken_off:
        told["broken_off"] = selection.video.timeline.broken_off
    return told


def make_plan(request: Request, settings: Settings, writer: PromptWriter, reader: Reader) -> Plan:
    """Opens the media and decides what is looked at; raises InvalidArgumentError if the context is too short for it."""
    writer.check_text(request.messages)
    options = request.video_options
    context_length = min(options.context_length or settings.context_length, settings.context_length)
    writer.check_length(request.messages, context_length, reader.owner, reader.interrupt)
    selections = [_select(attachment, request, settings, reader) for attachment in request.media]
    plan = _write(request, writer, with_lines(selections, options, context_length, writer))
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


def _select(attachment: Attachment, request: Request, settings: Settings, reader: Reader) -> Selection:
    reader.interrupt()
    if attachment.kind == "image":
        return select_image(attachment, reader.image_size(attachment), settings)
    options = request.video_options
    video = reader.video(attachment, thumbnails=options.sampler == "adaptive", subtitles=options.subtitles)
    return select_video(video, options, settings, question=request.question)


def _write(request: Request, writer: PromptWriter, selections: Sequence[Selection]) -> Plan:
    prompt = writer.write(request.messages, [selection.medium for selection in selections])
    return Plan(prompt, tuple(selections), wanted_tokens=len(prompt.token_ids))


def _fit(request: Request, plan: Plan, room: int, settings: Settings, writer: PromptWriter) -> Plan:
    """Shows less of the videos, each in proportion, until the prompt has at most `room` tokens or nothing is left."""
    overheads = [0 if shown.video is None else _timestamp_tokens(shown.video, writer) for shown in plan.selections]
    needs = [
        0 if shown.video is None else shown.tokens + shown.temporal_patches * overhead
        for shown, overhead in zip(plan.selections, overheads, strict=True)
    ]
    available = room - (len(plan.prompt.token_ids) - sum(needs))
    fitted = plan
    # Sizes come in steps and timestamps in lengths, so that the first try may miss by a little.
    while any(needs) and len(fitted.prompt.token_ids) > room and available > 0:
        shares = [available * need // sum(needs) for need in needs]
        selections = [
            _smaller(shown, share, overhead, request, settings)
            for shown, share, overhead in zip(plan.selections, shares, overheads, strict=True)
        ]
        fitted = _write(request, writer, selections)
        available = available * 9 // 10
    return replace(fitted, wanted_tokens=plan.wanted_tokens)


def _smaller(shown: Selection, share: int, overhead: int, request: Request, settings: Settings) -> Selection:
    """A video's selection in about `share` tokens, `overhead` of them for each timestamp; an image's as it is."""
    if shown.video is None:
        return shown
    patches = max(min(shown.temporal_patches, share // (LEAST_TOKENS_PER_FRAME + overhead)), 1)
    smaller = select_video(
        shown.video,
        request.video_options,
        settings,
        question=request.question,
        max_tokens=max(share - patches * overhead, 1),
        max_temporal_patches=patches,
    )
    medium = replace(smaller.medium, lines=shown.medium.lines)
    return replace(shown, size=smaller.size, medium=medium, indices=smaller.indices)


def _timestamp_tokens(video: Video, writer: PromptWriter) -> int:
    """Tokens that a temporal patch has beside its visual ones; a late timestamp has the most."""
    (tokens,) = writer.count_tokens([writer.timestamp_text(video.timeline.end_seconds)])
    return tokens - 1
