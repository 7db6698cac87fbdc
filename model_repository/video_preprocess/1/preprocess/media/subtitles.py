"""Subtitles: timed lines of text, out of a file (SRT, VTT, ASS) or a video's own text track."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import av
import charset_normalizer
import pysubs2
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle
from pysubs2.formats import autodetect_format

from preprocess.errors import InvalidArgumentError, shown

SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")
MAX_FILE_BYTES = 8 << 20
"""Of a file of subtitles, and of a track's packets together: those beyond are left out."""
MAX_FILE_LINES = 150_000
"""Of a file, blank ones between others included: a day of speech has fewer, and they are parsed in some seconds."""
MAX_TRACK_PACKETS = 100_000
MAX_LINES = 50_000
MAX_CHARACTERS = 400
"""Of a line: what is longer is cut."""
MAX_ALL_CHARACTERS = 4 << 20
"""Of all lines: a day of speech has a third of it. Lines that come after are left out."""

Choice = bool | str
"""Which subtitles are wanted: True for those that a player would show first, False for none, or a language tag."""

# Of tracks whose lines are text; the others' are pictures.
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
