"""Mergers fit the context, whatever the notes are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qwen3_vl_client.summaries.grouping import grouped, shortened
from qwen3_vl_client.summaries.notes import Note
from qwen3_vl_client.summaries.prompts import merge_question


def notes(*texts: str) -> list[Note]:
    return [Note(60.0 * index, 60.0 * index + 60, f"Part {index}", text) for index, text in enumerate(texts)]


def test_eight_at_once_where_there_is_room() -> None:
    assert [len(group) for group in grouped(notes(*["It rains."] * 20), 100_000)] == [8, 8, 4]


def test_fewer_where_they_do_not_fit() -> None:
    assert [len(group) for group in grouped(notes(*["x" * 300] * 7), 1200)] == [3, 3, 1]


def test_two_at_least() -> None:
    assert [len(group) for group in grouped(notes(*["x" * 3000] * 5), 1000)] == [2, 2, 1]


@given(st.lists(st.text(max_size=700), min_size=2, max_size=30), st.integers(600, 20_000))
def test_questions_fit(texts: list[str], room_bytes: int) -> None:
    listed = notes(*texts)
    groups = grouped(listed, room_bytes)
    assert [note for group in groups for note in group] == listed
    empty = len(merge_question([], "", "English").encode())
    for group in groups:
        question = merge_question(shortened(group, room_bytes), "", "English")
        assert len(question.encode()) <= room_bytes + empty
