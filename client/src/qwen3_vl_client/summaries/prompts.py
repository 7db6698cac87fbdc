"""The questions to the model: about a part of the video, and to make one account of several."""

from __future__ import annotations

from collections.abc import Sequence

from .cutting import Part
from .formats import clock
from .notes import CHAPTERS_PER_PART, KEY_POINTS, Note


def part_question(part: Part, parts: int, about: str, language: str) -> str:
    """Names no times: the frames bear them, and a time that a question names draws the sampler to it."""
    whole = f"These frames are part {part.index + 1} of {parts} of a longer video. " if parts > 1 else ""
    return (
        f"{whole}Each frame bears its time, in seconds of the whole video. Divide what is shown into chapters: where "
        "the scene, the subject or the activity changes, a new one begins. Answer with a JSON object:\n"
        '{"title": a title for all of it,\n'
        ' "summary": what happens, in a few sentences,\n'
        f' "chapters": at most {CHAPTERS_PER_PART}, in order, each {{"start": seconds, "end": seconds,'
        f' "title": a short title, "key_points": at most {KEY_POINTS} short sentences}}}}\n'
        f"Take the seconds from the frames.{_wishes(about, language)}"
    )


def merge_question(notes: Sequence[Note], about: str, language: str) -> str:
    """Asks for one account of what `notes` tell."""
    listed = "\n".join(
        f"{clock(note.start)} to {clock(note.end)}: {note.title}. {note.text.removesuffix('.')}." for note in notes
    )
    return (
        "These notes are about consecutive parts of one video:\n\n"
        f"{listed}\n\n"
        'Make one account of them, in the same order. Answer with a JSON object: {"title": a title for all of it, '
        '"summary": what happens, in a paragraph}. Name a time only if the notes do, and copy it exactly.'
        f"{_wishes(about, language)}"
    )


def _wishes(about: str, language: str) -> str:
    wish = f" What matters most: {about}" if about else ""
    return f"{wish} Write in {language}."
