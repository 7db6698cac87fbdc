"""Whatever a model answers: chapters in order, within their part, with titles."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_vl_client.summaries.cutting import Part
from qwen3_vl_client.summaries.notes import Chapter, Note, read_merged, read_part

PART = Part(2, 600.0, 900.0)


def answer(*chapters: dict[str, Any], **content: Any) -> str:
    return json.dumps({"title": "A walk", "summary": "They walk.", "chapters": list(chapters), **content})


def chapter(start: Any, end: Any, title: str = "Rain", *points: str) -> dict[str, Any]:
    return {"start": start, "end": end, "title": title, "key_points": list(points)}


def times(text: str) -> list[tuple[float, float]]:
    return [(each.start, each.end) for each in read_part(text, PART)[1]]


def test_good_answer_is_taken_as_it_is() -> None:
    note, chapters = read_part(answer(chapter(600, 700.5, "Rain", "It  rains."), chapter(700.5, 900, "Sun")), PART)
    assert note == Note(600.0, 900.0, "A walk", "They walk.")
    assert chapters == (Chapter(600.0, 700.5, "Rain", ("It rains.",)), Chapter(700.5, 900.0, "Sun"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([(650, 700), (600, 650)], [(600, 650), (650, 700)]),
        ([(600, 800), (700, 900)], [(600, 700), (700, 900)]),
        ([(0, 650), (650, 5000)], [(600, 650), (650, 900)]),
        ([(10, 100), (100, 250)], [(610, 700), (700, 850)]),
        ([(700, 650), (800, 800)], [(650, 700), (800, 900)]),
        ([("x", None)], [(600, 900)]),
        ([(True, 700)], [(600, 700)]),
        ([(620, 1e999)], [(620, 900)]),
        ([], [(600, 900)]),
    ],
)
def test_times_are_put_right(given: list[tuple[Any, Any]], expected: list[tuple[float, float]]) -> None:
    assert times(answer(*(chapter(start, end) for start, end in given))) == expected


def test_chapters_that_begin_at_once_are_one_and_lose_nothing() -> None:
    _, (one,) = read_part(answer(chapter(600, 700, "Rain", "Wet."), chapter(600, 800, "Wind", "Cold.")), PART)
    assert one == Chapter(600.0, 800.0, "Rain", ("Wet.", "Wind", "Cold."))


def test_answer_that_was_cut_off_keeps_its_complete_chapters() -> None:
    whole = answer(chapter(600, 700), chapter(700, 800, "Sun"), chapter(800, 900, "Wind"))
    note, chapters = read_part(whole[: whole.index("Wind")], PART)
    assert note.text == "They walk."
    assert [each.title for each in chapters] == ["Rain", "Sun"]


def test_answer_that_was_cut_off_before_its_first_chapter_keeps_its_texts() -> None:
    whole = answer(chapter(600, 700))
    note, (only,) = read_part(whole[: whole.index(" walk.")], PART)
    assert note == Note(600.0, 900.0, "A walk", "They")
    assert only == Chapter(600.0, 900.0, "A walk")


def test_json_between_words_and_fences_is_found() -> None:
    assert times(f"Sure!\n```json\n{answer(chapter(610, 620))}\n```") == [(610, 620)]


def test_prose_is_one_chapter() -> None:
    note, (only,) = read_part("Two people walk in the rain.", PART)
    assert note.text == "Two people walk in the rain."
    assert only == Chapter(600.0, 900.0, "Two people walk in the rain.")


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(10**400), 10**400) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["start", "end", "title", "key_points"]), inner)
    ),
    max_leaves=20,
)
some_chapters = st.lists(
    st.fixed_dictionaries(
        {"start": st.floats(0, 2000) | anything, "end": st.floats(0, 2000) | anything, "title": st.text() | anything}
    )
    | anything
)


@given(st.fixed_dictionaries({"chapters": some_chapters | anything}) | anything)
def test_no_answer_breaks_the_order(content: Any) -> None:
    _, chapters = read_part(json.dumps(content), PART)
    assert chapters
    assert all(PART.start <= each.start < each.end <= PART.end for each in chapters)
    assert all(before.end <= after.start for before, after in pairwise(chapters))


NOTES = (Note(0, 300, "A", "At 1:05 it rains."), Note(300, 600, "B", "The sun (7:30) is out."))


def test_merged_account_keeps_the_times_of_the_notes_and_no_other() -> None:
    text = "Rain at 1:05, sun from 5:00 to 7:30, snow at 8:15, all done [0:10:00]."
    merged = read_merged(json.dumps({"title": "Weather", "summary": text}), NOTES)
    assert merged == Note(0, 600, "Weather", "Rain at 1:05, sun from 5:00 to 7:30, snow at , all done [0:10:00].")


def test_merger_that_says_nothing_leaves_the_notes() -> None:
    assert read_merged("{}", NOTES) == Note(0, 600, "A", "At 1:05 it rains. The sun (7:30) is out.")
