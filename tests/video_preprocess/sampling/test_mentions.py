"""Times that a question names."""

from __future__ import annotations

import pytest

from preprocess.sampling.mentions import MOST_CHARACTERS, Mentions, Span, mentioned_times

DURATION = 5000.0


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("What happens at 32:15?", [(1930, 1940)]),
        ("who speaks between 1:00:00 and 1:10:00", [(3600, 4200)]),
        ("from 1:20 to 1:40", [(80, 100)]),
        ("1:20-1:40", [(80, 100)]),
        ("from 90 s to 2 min", [(90, 120)]),
        ("at 12:34 and 56:07.5", [(749, 759), (3362.5, 3372.5)]),
        ("in the last minute", [(4940, 5000)]),
        ("during the last 10 seconds", [(4990, 5000)]),
        ("the first two minutes", [(0, 120)]),
        ("after about 90 seconds", [(85, 95)]),
        ("at 1 hour and 5 minutes", [(3895, 3905)]),
        ("the 25th minute", [(1440, 1500)]),
        ("at minute 12", [(715, 725)]),
        ("at the 30 second mark", [(25, 35)]),
        ("at 0:02", [(0, 7)]),
        ("第25分钟发生了什么", [(1440, 1500)]),
        ("第二十五分钟", [(1440, 1500)]),
        ("在3分20秒的时候", [(195, 205)]),
        ("1小时2分30秒处", [(3745, 3755)]),
        ("二十五分钟到三十分钟", [(1500, 1800)]),
        ("在1:00和2:00之间", [(60, 120)]),
        ("最后一分钟", [(4940, 5000)]),
        ("前十秒", [(0, 10)]),
    ],
)
def test_named(text: str, spans: list[tuple[float, float]]) -> None:
    assert mentioned_times(text, DURATION).spans == tuple(Span(*span) for span in spans)


@pytest.mark.parametrize(
    "text",
    [
        "How many people are there?",
        "What does he do for five minutes?",
        "a minute of silence",
        "16:9",
        "He won 3:2",
        "",
        "at 99:00",
    ],
)
def test_none_named(text: str) -> None:
    assert mentioned_times(text, DURATION) == Mentions()


def test_overlapping_spans_are_joined_and_cut_at_the_ends() -> None:
    assert mentioned_times("at 0:10 and at 0:14, and the last three hours", 600).spans == (Span(0, 600),)
    assert mentioned_times("at 0:10 and at 0:14", 600).spans == (Span(5, 19),)


@pytest.mark.parametrize(
    ("text", "moments"),
    [
        ("What is shown at 6.5 seconds, and at 0:04?", (6.5, 4.0)),
        ("在4.6秒时显示什么？", (4.6,)),
        ("after about 90 seconds", (90.0,)),
        ("at 0:02 and at 99:00", (2.0,)),
        ("from 1:20 to 1:40", ()),
        ("the 25th minute", ()),
        ("in the last minute", ()),
    ],
)
def test_moments_are_told_from_spans(text: str, moments: tuple[float, ...]) -> None:
    assert mentioned_times(text, DURATION).moments == moments


@pytest.mark.parametrize("filling", ["1", "at 0:01 ", "一", "1 - ", "last "])
def test_of_a_text_without_end_the_end_is_read(filling: str) -> None:
    long = f"at 3:20, {filling * (1_000_000 // len(filling))}"
    named = mentioned_times(f"{long}. What happens at 32:15?", DURATION)
    assert named.moments[-1] == 1935
    assert 200 not in named.moments
    assert len(named.moments) <= MOST_CHARACTERS // len(filling) + 1
