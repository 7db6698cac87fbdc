"""Summaries as text: Markdown for people, JSON for programs, SRT and WebVTT with the chapters for players."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace

from .summary import Summary


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour; the second that has begun."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def markdown(summary: Summary) -> str:
    """A heading, the account, and a section for each chapter."""
    lines = [f"# {summary.title}", "", summary.text, ""]
    for chapter in summary.chapters:
        lines += [f"## {clock(chapter.start)}–{clock(chapter.end)} {chapter.title}", ""]
        lines += [f"- {point}" for point in chapter.key_points]
        lines += [""] if chapter.key_points else []
    return "\n".join(lines)


def brief(summary: Summary, room_bytes: int) -> str:
    """The Markdown of as much as `room_bytes` hold: without key points, or without chapters, if there is no room."""
    titles = replace(summary, chapters=tuple(replace(chapter, key_points=()) for chapter in summary.chapters))
    forms = map(markdown, (summary, titles, replace(summary, chapters=())))
    fitting = (form for form in forms if len(form.encode()) <= room_bytes)
    return next(fitting, summary.text.encode()[:room_bytes].decode(errors="ignore"))


def as_json(summary: Summary) -> str:
    """All of it; times in seconds."""
    return json.dumps(asdict(summary), ensure_ascii=False, indent=2) + "\n"


def srt(summary: Summary) -> str:
    """A numbered cue for each chapter's title."""
    cues = [
        f"{number}\n{_stamp(chapter.start, ',')} --> {_stamp(chapter.end, ',')}\n{chapter.title}\n"
        for number, chapter in enumerate(summary.chapters, start=1)
    ]
    return "\n".join(cues)


def vtt(summary: Summary) -> str:
    """The same as WebVTT, as `<track kind="chapters">` takes it."""
    cues = [
        f"{_stamp(chapter.start, '.')} --> {_stamp(chapter.end, '.')}\n{_escaped(chapter.title)}\n"
        for chapter in summary.chapters
    ]
    return "\n".join(["WEBVTT\n", *cues])


FORMATS: dict[str, Callable[[Summary], str]] = {"markdown": markdown, "json": as_json, "srt": srt, "vtt": vtt}


def _stamp(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
