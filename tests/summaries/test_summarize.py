"""From parts to a summary: what is asked, in which order, how much at once, and what is kept."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from qwen3_vl_client import InternalError, InvalidRequest, ResourceExhausted
from qwen3_vl_client.summaries import (
    Cut,
    Merged,
    PartDone,
    Summary,
    SummaryEvent,
    SummaryOptions,
    summarize,
)
from tests.summaries.narrator import Narrator


def run(narrator: Any, **options: Any) -> list[SummaryEvent]:
    async def collect() -> list[SummaryEvent]:
        return [event async for event in summarize(narrator, uri="a.mp4", options=SummaryOptions(**options))]

    return asyncio.run(collect())


def summary(narrator: Any, **options: Any) -> Summary:
    last = run(narrator, **options)[-1]
    assert isinstance(last, Summary)
    return last


def test_events_tell_how_far_it_is() -> None:
    events = run(Narrator(seconds=3600), part_seconds=300)
    assert isinstance(events[0], Cut)
    assert (len(events[0].parts), events[0].resumed) == (12, 0)
    assert sorted(event.part.index for event in events if isinstance(event, PartDone)) == list(range(12))
    merged = [(event.level, event.done, event.total) for event in events if isinstance(event, Merged)]
    assert merged == [(1, 1, 2), (1, 2, 2), (2, 1, 1)]
    assert isinstance(events[-1], Summary)


def test_every_chapter_of_every_part_is_there_with_its_times() -> None:
    narrator = Narrator(seconds=1000)
    made = summary(narrator, part_seconds=250)
    assert [chapter.start for chapter in made.chapters] == [50.0 * scene for scene in range(20)]
    assert all(before.end <= after.start for before, after in pairwise(made.chapters))
    assert made.seconds == 1000
    assert made.title == "All of it"
    # The narrator merges by repeating what it was given: each part's account, with its times.
    assert [part in made.text for part in ("0:00 to 4:10", "4:10 to 8:20", "8:20 to 12:30", "12:30 to 16:40")] == [
        True
    ] * 4


def test_parts_are_asked_between_their_own_times() -> None:
    narrator = Narrator(seconds=500)
    run(narrator, part_seconds=250, video_options={"fps": 1}, sampling={"temperature": 0})
    first, last, merger = narrator.asked
    assert first["video_options"] == {"fps": 1, "start": 0.0, "end": 249.999}
    assert last["video_options"] == {"fps": 1, "start": 250.0, "end": 500}
    assert {key: last["sampling"][key] for key in ("temperature", "seed")} == {"temperature": 0, "seed": 0}
    assert last["sampling"]["response_format"]["type"] == "json_schema"
    assert "video_options" not in merger


def test_parts_shrink_to_what_the_context_holds() -> None:
    cut = run(Narrator(seconds=1000, context=125), part_seconds=500)[0]
    assert isinstance(cut, Cut)
    assert max(part.end - part.start for part in cut.parts) <= 125
    assert len(cut.parts) < 16


def test_video_that_fits_is_asked_once() -> None:
    narrator = Narrator(seconds=200)
    made = summary(narrator)
    assert len(narrator.asked) == 1
    assert (made.title, made.text) == ("From 0", "Until 200.")


def test_no_more_in_flight_than_allowed() -> None:
    narrator = Narrator(seconds=1000)
    run(narrator, part_seconds=100, in_flight=3)
    assert narrator.most_running == 3


def test_two_are_read_while_the_others_are_answered() -> None:
    narrator = Narrator(seconds=1000)
    run(narrator, part_seconds=100, in_flight=5)
    assert (narrator.most_reading, narrator.most_running) == (2, 5)


def test_summaries_that_share_places_hold_no_more_of_them() -> None:
    narrator = Narrator(seconds=1000)

    async def together() -> list[SummaryEvent]:
        options = SummaryOptions(part_seconds=100, in_flight=8, places=asyncio.Semaphore(3))
        made = await asyncio.gather(*(last(narrator, options) for _ in range(4)))
        return list(made)

    async def last(narrator: Any, options: SummaryOptions) -> SummaryEvent:
        return [event async for event in summarize(narrator, uri="a.mp4", options=options)][-1]

    first, *others = asyncio.run(together())
    assert isinstance(first, Summary)
    assert others == [first] * 3
    assert narrator.most_running == 3


@pytest.mark.parametrize(
    ("day", "options", "reason"),
    [
        (
            Narrator(seconds=86_400),
            {"part_seconds": 1},
            r"86,400 parts of 1 s; at most 2,000 are accepted \(max_parts\): part_seconds of 44 or more",
        ),
        (
            Narrator(seconds=86_400, context=5),
            {},
            "at most 2,000 are accepted .*the context holds no more.* parts of 44 s",
        ),
        (Narrator(seconds=86_400), {"max_parts": 100}, "288 parts of 300 s; at most 100 are accepted .* of 864 or"),
    ],
)
def test_a_video_of_too_many_parts_is_refused_before_any_is_asked_about(
    day: Narrator, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        run(day, **options)
    assert day.asked == []


def test_what_the_refusal_advises_is_accepted() -> None:
    async def cut() -> Cut:
        events = summarize(Narrator(seconds=86_400), uri="a.mp4", options=SummaryOptions(part_seconds=44))  # type: ignore[arg-type]
        first = await anext(events)
        await events.aclose()
        assert isinstance(first, Cut)
        return first

    assert len(asyncio.run(cut()).parts) >= 86_400 / 44


def test_only_parts_that_run_are_tasks() -> None:
    narrator = Narrator(seconds=86_400)

    async def count() -> int:
        options = SummaryOptions(part_seconds=44, in_flight=3)
        events = summarize(narrator, uri="a.mp4", options=options)  # type: ignore[arg-type]
        async for event in events:
            if isinstance(event, PartDone):
                break
        tasks = len(asyncio.all_tasks())
        await events.aclose()
        return tasks

    assert asyncio.run(count()) <= 1 + 3


def test_leaving_early_cancels_what_runs() -> None:
    narrator = Narrator(seconds=1000)

    async def leave() -> None:
        events = summarize(narrator, uri="a.mp4", options=SummaryOptions(part_seconds=100, in_flight=3))  # type: ignore[arg-type]
        async for event in events:
            if isinstance(event, PartDone):
                break
        await events.aclose()
        assert narrator.running == 0

    asyncio.run(leave())
    assert len(narrator.asked) < 10


def test_failure_of_a_part_ends_all() -> None:
    def fail(start: float, end: float) -> str:
        raise InternalError(f"at {start}")

    narrator = Narrator(seconds=1000, answer=fail)
    with pytest.raises(InternalError, match="at 0"):
        run(narrator, part_seconds=100, in_flight=2)
    assert len(narrator.asked) < 10


def test_full_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3_vl_client.summaries.summarizing._REFUSED_SECONDS", (0.0, 0.0))
    refusals = iter([True, True, False])

    class Full(Narrator):
        def tell(self, *request: Any) -> str:
            if next(refusals, False):
                raise ResourceExhausted("full")
            return super().tell(*request)

    assert summary(Full(seconds=100)).title == "From 0"
    refusals = iter([True] * 3)
    with pytest.raises(ResourceExhausted):
        run(Full(seconds=100))


def test_interrupted_summary_goes_on_where_it_was(tmp_path: Path) -> None:
    class Breaks(Narrator):
        def tell(self, *request: Any) -> str:
            if len(self.asked) == 4:
                raise InternalError("broken")
            return super().tell(*request)

    options = {"part_seconds": 200, "journal": tmp_path, "in_flight": 1}
    with pytest.raises(InternalError):
        run(Breaks(seconds=1000), **options)
    (journal,) = tmp_path.iterdir()
    journal.write_text(journal.read_text() + '\n{"step": "part 3", "ans')

    again = Narrator(seconds=1000)
    events = run(again, **options)
    assert isinstance(events[0], Cut)
    assert events[0].resumed == 3
    assert len(again.asked) == 2 + 1
    assert events[-1] == summary(Narrator(seconds=1000), part_seconds=200)
    assert list(tmp_path.iterdir()) == []


def test_other_options_are_another_journal(tmp_path: Path) -> None:
    class Breaks(Narrator):
        def tell(self, *request: Any) -> str:
            if len(self.asked) == 2:
                raise InternalError("broken")
            return super().tell(*request)

    for about in ("birds", "cars"):
        with pytest.raises(InternalError):
            run(Breaks(seconds=1000), part_seconds=200, journal=tmp_path, about=about, in_flight=1)
    assert len(list(tmp_path.iterdir())) == 2
    first = json.loads(next(tmp_path.iterdir()).read_text())
    assert first["step"] == "part 0"


def test_complete_summary_is_found_again_where_its_journal_is_kept(tmp_path: Path) -> None:
    first = run(Narrator(seconds=1000), part_seconds=200, journal=tmp_path, keep_journal=True)
    again = Narrator(seconds=1000)
    assert run(again, part_seconds=200, journal=tmp_path, keep_journal=True)[-1] == first[-1]
    assert again.asked == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part_seconds": 0}, "part_seconds is 0; at least 1"),
        ({"in_flight": 0}, "in_flight is 0; at least 1"),
        ({"max_parts": 0}, "max_parts is 0; at least 1"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SummaryOptions(**options)


def test_bounds_of_the_video_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="start is given"):
        run(Narrator(), video_options={"start": 5.0})


def test_one_video_is_accepted() -> None:
    async def nothing() -> None:
        async for _ in summarize(Narrator()):  # type: ignore[arg-type]
            pass

    with pytest.raises(InvalidRequest, match="one video"):
        asyncio.run(nothing())
