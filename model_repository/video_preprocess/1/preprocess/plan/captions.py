"""Which lines the prompt shows: those of the part that is looked at, as many as the budget has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from preprocess.media.subtitles import Line
from preprocess.plan.prompt import PromptWriter
from preprocess.plan.selection import Selection
from preprocess.request.options import VideoOptions
from preprocess.sampling.spread import spread_order

CONTEXT_SHARE = 1 / 4
"""The share of the context that the lines of all videos get at most."""

_COUNTED_AT_ONCE = 256


def with_lines(
    selections: Sequence[Selection], options: VideoOptions, context_length: int, writer: PromptWriter
) -> list[Selection]:
    """The selections with the lines of their videos; each video has the same share of the budget."""
    spoken = [selection for selection in selections if selection.video is not None and selection.video.lines]
    max_tokens = int(context_length * CONTEXT_SHARE) // max(len(spoken), 1)
    return [_with_lines(selection, options, max_tokens, writer) for selection in selections]


def _with_lines(selection: Selection, options: VideoOptions, max_tokens: int, writer: PromptWriter) -> Selection:
    if selection.video is None:
        return selection
    start, end = options.start or 0.0, selection.video.timeline.end_seconds
    if options.end is not None:
        end = min(options.end, end)
    lines = [line for line in selection.video.lines if line.end >= start and line.start <= end]
    fitting = _thinned(lines, max_tokens, writer)
    medium = replace(selection.medium, lines=tuple(fitting))
    return replace(selection, medium=medium, lines_left_out=len(lines) - len(fitting))


def _thinned(lines: Sequence[Line], max_tokens: int, writer: PromptWriter) -> list[Line]:
    """Lines of at most `max_tokens` tokens together, evenly spread over all. No more are counted than may fit."""
    kept: list[int] = []
    places = iter(spread_order(len(lines)).tolist())
    while some := list(islice(places, _COUNTED_AT_ONCE)):
        counts = writer.count_tokens([writer.line_text(lines[place]) for place in some])
        for place, tokens in zip(some, counts, strict=True):
            max_tokens -= tokens
            if max_tokens < 0:
                return [lines[place] for place in sorted(kept)]
            kept.append(place)
    return [lines[place] for place in sorted(kept)]
