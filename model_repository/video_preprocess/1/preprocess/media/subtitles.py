"""Subtitles: timed lines of text, out of a file (SRT, VTT, ASS) with or beside a video, or its own text track."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import av
import charset_normalizer
import pysubs2
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle
from pysubs2.formats import autodetect_format

from preprocess.errors import InvalidArgumentError, machine_resources, shown
from preprocess.media.attachment import Attachment
from preprocess.media.library import Library

SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")
MAX_FILE_BYTES = 8 << 20
"""The bound on a file of subtitles, and on a track's packets together: those beyond are left out."""
MAX_FILE_LINES = 150_000
"""The bound on a file's lines, blank ones between others included: a day of speech has fewer."""
MAX_NEIGHBOURS = 50_000
"""Files of a folder among which a video's subtitles are looked for; in a larger one the plainest names are tried."""
MAX_TRACK_PACKETS = 100_000
MAX_LINES = 50_000
MAX_CHARACTERS = 400
"""A longer line is cut."""
MAX_ALL_CHARACTERS = 4 << 20
"""The bound on all lines together: a day of speech has a third of it. Lines that come after are left out."""

Choice = bool | str
"""Which subtitles are wanted: True for those that a player would show first, False for none, or a language tag."""

# The codecs of tracks whose lines are text; the others' are pictures.
_TEXT_CODECS = ("mov_text", "srt", "subrip", "ass", "ssa", "webvtt", "text")
# Encodings that subtitle files without Unicode are in: with fewer to choose from, short files are told apart better.
_ENCODINGS = ["cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp874"]
_ENCODINGS += ["gb18030", "big5", "shift_jis", "euc_kr"]
# Characters that have no place in a text: controls that are no white space (Unicode's Cc), halves of surrogate pairs.
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]+")
_SHOWN = 20
"""Characters of a track's language in a message: a file may say anything."""
_MAX_FILE_LINE = 4096
"""Characters of a line of a file: what is longer is cut."""
_FORMATS = ("srt", "vtt", "ass", "ssa")
_TAGGED = ("srt", "vtt")
"""Formats whose tags are HTML's."""
_HEAD = 10_000
"""Characters by which a file's format is told."""

# None of these looks further than to the next opening bracket: where none closes, others take time that grows with the
# square of the text.
_TAG = re.compile(r"< ?/? ?(?:[a-z][^<>]*|\d[\d:.]+)>", re.IGNORECASE)
_OVERRIDE = re.compile(r"\{[^{}]*\}")
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9]")
"""Behind it an ASS line has shapes where others have words."""
# In the ASS text that libav makes of a packet, the words follow the eighth comma.
_FIELDS_BEFORE_TEXT = 8


@dataclass(frozen=True)
class Line:
    """Words that are shown or said from `start` to `end`, in seconds on a player's clock. One line of text."""

    start: float
    end: float
    text: str
    label: str = "Subtitle"


def subtitle_file(library: Library, video: Attachment, choice: Choice) -> bytes | None:
    """The content of the subtitle file that came with a video or lies beside it, if that is wanted.

    Beside `talk.mp4` may lie `talk.srt` or, with a language tag, `talk.eng.srt`. Raises InvalidArgumentError for an
    attached file that is not wanted.
    """
    if video.subtitles is not None:
        if choice is False:
            raise InvalidArgumentError(
                f"video_options.subtitles is false, and subtitles are attached to {video.name}; accepted is either"
            )
        return video.subtitles
    if choice is False or library.root is None or not isinstance(video.source, str):
        return None
    # Only beside a video that may be read itself; the name that was given counts, not that of what it links to.
    library.resolve(video.source, video.name)
    path = library.root / video.source
    language = "" if choice is True else f".{choice.lower()}"
    tagged = {name: Path(name.lower()).stem.removeprefix(path.stem.lower()) for name in _beside(path, language)}
    ranked = [name for name in tagged if tagged[name] == language]
    if choice is True:
        ranked += [name for name in tagged if re.fullmatch(r"\.[a-z]{2,3}(-[a-z0-9]+)*", tagged[name])]
    if not ranked:
        return None
    file = replace(video, source=library.resolve(f"{Path(video.source).parent}/{ranked[0]}", video.name))
    content, size = library.read_head(file, MAX_FILE_BYTES)
    if size > MAX_FILE_BYTES:
        raise InvalidArgumentError(
            f"the subtitle file of {video.name} has {size} bytes; at most {MAX_FILE_BYTES} bytes are accepted"
        )
    return content


def choose_track(container: av.container.InputContainer, choice: Choice, name: str) -> SubtitleStream | None:
    """The text track that is wanted, if any; raises InvalidArgumentError where there is none in the language."""
    tracks = [
        track
        for track in container.streams.subtitles
        if track.codec_context is not None and track.codec_context.name in _TEXT_CODECS
    ]
    if choice is False:
        return None
    if choice is True:
        shown_first = [track for track in tracks if track.disposition & av.stream.Disposition.default]
        return next(iter(shown_first + tracks), None)
    for track in tracks:
        if (track.language or "").lower() == choice.lower():
            return track
    languages = ", ".join(sorted({(track.language or "no language")[:_SHOWN] for track in tracks})) or "none"
    raise InvalidArgumentError(f"video_options.subtitles is {shown(choice)}; {name} has text tracks in: {languages}")


def read_subtitles(content: bytes, name: str) -> tuple[Line, ...]:
    """The lines of a subtitle file, in order; raises InvalidArgumentError for a file that is none, or a larger one."""
    if len(content) > MAX_FILE_BYTES:
        raise InvalidArgumentError(f"{name} has {len(content)} bytes; at most {MAX_FILE_BYTES} bytes are accepted")
    text = _bounded(_decoded(content), name)
    try:
        format_ = autodetect_format(text[:_HEAD])
        if format_ not in _FORMATS:
            raise ValueError(format_)
        file = pysubs2.SSAFile.from_string(text, format_, keep_html_tags=True)
    except Exception as error:
        # pysubs2's parsers raise whatever a damaged file leads them to.
        raise InvalidArgumentError(f"{name} is not a readable subtitle file; SRT, VTT and ASS are accepted") from error
    tagged = format_ in _TAGGED
    return tidy(
        Line(event.start / 1000, event.end / 1000, html.unescape(_TAG.sub("", words) if tagged else words))
        for event in file
        if not event.is_comment and (words := _words(event.text))
    )


def packet_lines(packet: av.Packet, zero_seconds: float) -> Iterator[Line]:
    """The lines of a packet of a text track; the player's clock shows zero at `zero_seconds` of the container's."""
    if packet.pts is None or packet.time_base is None:
        return
    start = float(packet.pts * packet.time_base) - zero_seconds
    end = start + float((packet.duration or 0) * packet.time_base)
    try:
        subtitles = packet.decode()
    except av.FFmpegError:
        # A damaged line costs itself.
        return
    for subtitle in subtitles:
        if not isinstance(subtitle, AssSubtitle):
            continue
        fields = subtitle.ass.decode(errors="replace").split(",", _FIELDS_BEFORE_TEXT)
        yield Line(start, end, _words(fields[-1]))


def tidy(lines: Iterable[Line]) -> tuple[Line, ...]:
    """In the order in which they are shown; each text on one line; empty ones gone, and what is repeated joined."""
    tidied: list[Line] = []
    room = MAX_ALL_CHARACTERS
    for line in sorted(lines, key=lambda line: (line.start, line.end)):
        text = " ".join(_UNSEEN.sub("", line.text).split())[:MAX_CHARACTERS]
        if not text or line.end < 0:
            continue
        if tidied and tidied[-1].text == text and line.start <= tidied[-1].end:
            tidied[-1] = replace(tidied[-1], end=max(tidied[-1].end, line.end))
        elif len(tidied) < MAX_LINES and len(text) <= room:
            room -= len(text)
            tidied.append(Line(max(line.start, 0.0), max(line.end, line.start, 0.0), text, line.label))
    return tuple(tidied)


def _beside(video: Path, language: str) -> list[str]:
    """Names of subtitle files beside a video that begin as its own name does, in order."""
    stem = video.stem.lower()
    plain = [f"{video.stem}{language}{suffix}" for suffix in SUFFIXES]
    found = {name for name in plain if os.path.exists(video.parent / name)}  # noqa: PTH110 - False for long names too
    with suppress(PermissionError), machine_resources(), os.scandir(video.parent) as entries:
        for entry in islice(entries, MAX_NEIGHBOURS):
            name = entry.name.lower()
            if name.startswith(stem) and name.endswith(SUFFIXES):
                found.add(entry.name)
    return sorted(found)


def _words(text: str) -> str:
    """An event's text without ASS's overrides, as pysubs2's `plaintext`; nothing of one that draws shapes."""
    if _DRAWING.search(text):
        return ""
    return _OVERRIDE.sub("", text).replace(r"\h", " ").replace(r"\n", "\n").replace(r"\N", "\n")


def _bounded(text: str, name: str) -> str:
    """The text with no more white space in it than parsers need: their time grows with the square of its runs."""
    lines: list[str] = []
    for raw in text.splitlines():
        line = " ".join(raw[:_MAX_FILE_LINE].split())
        if line or (lines and lines[-1]):
            lines.append(line)
        if len(lines) > MAX_FILE_LINES:
            raise InvalidArgumentError(f"{name} has more than {MAX_FILE_LINES} lines, the most accepted")
    return "\n".join(lines)


def _decoded(content: bytes) -> str:
    """UTF-8, UTF-16 with its mark, or what the content looks like most."""
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        best = charset_normalizer.from_bytes(content[: 1 << 16], cp_isolation=_ENCODINGS).best()
        return content.decode(best.encoding if best else "cp1252", errors="replace")
