"""The same summary as text of four kinds."""

from __future__ import annotations

import json

from qwen3_vl_client.summaries import FORMATS, Chapter, Note, Summary, brief, clock

SUMMARY = Summary(
    title="Weather",
    text="It rains, then the sun comes.",
    seconds=4000.0,
    chapters=(Chapter(0.0, 61.25, "Rain & wind", ("Wet.", "Cold.")), Chapter(61.25, 4000.0, "太阳")),
    notes=(Note(0.0, 4000.0, "Weather", "It rains."),),
)


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.99, 61.25, 3599, 3661, 36000)] == [
        "0:00",
        "0:59",
        "1:01",
        "59:59",
        "1:01:01",
        "10:00:00",
    ]


def test_markdown() -> None:
    assert FORMATS["markdown"](SUMMARY) == (
        "# Weather\n\nIt rains, then the sun comes.\n\n"
        "## 0:00–1:01 Rain & wind\n\n- Wet.\n- Cold.\n\n## 1:01–1:06:40 太阳\n"
    )


def test_json() -> None:
    content = json.loads(FORMATS["json"](SUMMARY))
    assert content["chapters"][1] == {"start": 61.25, "end": 4000.0, "title": "太阳", "key_points": []}
    assert content.keys() == {"title", "text", "seconds", "chapters", "notes"}


def test_srt() -> None:
    assert FORMATS["srt"](SUMMARY) == (
        "1\n00:00:00,000 --> 00:01:01,250\nRain & wind\n\n2\n00:01:01,250 --> 01:06:40,000\n太阳\n"
    )


def test_vtt() -> None:
    assert FORMATS["vtt"](SUMMARY) == (
        "WEBVTT\n\n00:00:00.000 --> 00:01:01.250\nRain &amp; wind\n\n00:01:01.250 --> 01:06:40.000\n太阳\n"
    )


def test_brief_says_as_much_as_there_is_room_for() -> None:
    whole = FORMATS["markdown"](SUMMARY)
    assert brief(SUMMARY, len(whole.encode())) == whole
    titles = brief(SUMMARY, len(whole.encode()) - 1)
    assert SUMMARY.chapters[0].title in titles
    assert not any(point in titles for chapter in SUMMARY.chapters for point in chapter.key_points)
    account = brief(SUMMARY, len(titles.encode()) - 1)
    assert SUMMARY.text in account
    assert SUMMARY.chapters[-1].title not in account
    assert SUMMARY.text.startswith(brief(SUMMARY, 5))
    assert all(len(brief(SUMMARY, room).encode()) <= room for room in range(len(whole.encode())))
