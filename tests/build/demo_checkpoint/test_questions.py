"""Questions have the answers that the track says, and the rule accepts those and no others."""

import numpy as np
import pytest

from build.demo_checkpoint.world import wording
from build.demo_checkpoint.world.questions import KINDS, Asker, Question, Track, Turn, is_right
from build.demo_checkpoint.world.world import Thing

RED, BLUE, STAR = Thing("shape", "circle", "red"), Thing("shape", "square", "blue"), Thing("shape", "star", "green")
NUMBER = Thing("number", "47")

# Four scenes: red left of blue; the number; red again, elsewhere, after a patch with a cut inside; the star.
TRACK = Track(
    timestamps=("0.2", "1.2", "2.2", "3.2", "4.2", "65.2"),
    things=(((RED, 0), (BLUE, 4)), ((RED, 0), (BLUE, 4)), ((NUMBER, 2),), (), ((RED, 5),), ((STAR, 1),)),
    scenes=(0, 0, 1, -1, 2, 3),
)


def ask(kind: str, language: wording.Language = "en") -> set[tuple[str, str]]:
    asker = Asker(TRACK, language, np.random.default_rng(0))
    asked = (asker.ask(kind) for _ in range(200))
    return {(question.turns[-1].question, question.turns[-1].answer) for question in asked if question}


def expected(kind: str, answer: str, language: wording.Language = "en", **names: str) -> set[tuple[str, str]]:
    return {(phrasing.format(**names), answer) for phrasing in wording.QUESTIONS[kind][language]}


def test_when_is_asked_about_what_appears_once() -> None:
    assert ask("when") == (
        expected("when", "From 0.2 to 1.2 seconds.", x="the blue square")
        | expected("when", "From 2.2 to 2.2 seconds.", x="the number 47")
        | expected("when", "From 65.2 to 65.2 seconds.", x="the green star")
    )


def test_when_in_minutes_drops_fractions() -> None:
    wanted = expected("when in minutes", "从01:05到01:05。", "zh", x="绿色星形")
    assert wanted <= ask("when in minutes", "zh")


def test_how_many_counts_appearances() -> None:
    assert expected("how many", "2 times.", x="the red circle") <= ask("how many")
    assert expected("how many", "1 time.", x="the blue square") <= ask("how many")


def test_after_and_before_skip_what_appears_together() -> None:
    assert ask("after") == (
        expected("after", "The number 47.", x="the blue square")
        | expected("after", "The red circle.", x="the number 47")
    )
    # Red and blue came together before the number, so nothing is asked about them.
    assert ask("before") == expected("before", "The red circle.", x="the green star")


def test_left_compares_columns() -> None:
    # The red circle changes its cell later on: no place is its place.
    assert ask("left") == set()


def test_where_is_asked_about_what_stays() -> None:
    assert expected("where", "At the bottom middle.", x="the blue square") <= ask("where")
    assert expected("where", "在右上。", "zh", x="数字47") <= ask("where", "zh")


def test_a_chapter_of_a_summary_ends_where_the_next_one_begins() -> None:
    answer = (
        "The red circle, the blue square: 0.2 seconds to 2.2 seconds\nThe number 47: 2.2 seconds to 4.2 seconds\n"
        "The red circle: 4.2 seconds to 65.2 seconds\nThe green star: 65.2 seconds to 65.2 seconds"
    )
    assert ask("summary") == expected("summary", answer)


def test_what_is_not_shown_is_said_to_be_not_shown() -> None:
    shown = [wording.name(thing, "en") for thing in TRACK.seen]
    for question, answer in ask("not shown"):
        assert answer == "It does not appear."
        assert not any(f"{name} " in question or f"{name}?" in question for name in shown)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_is_right(kind: str, language: wording.Language) -> None:
    asker = Asker(TRACK, language, np.random.default_rng(1))
    for question in filter(None, (asker.ask(kind) for _ in range(20))):
        assert is_right(question, question.turns[-1].answer, moments=[0.0])
        assert not is_right(question, "The cat.", moments=[0.0, 1000.0])


def judge(kind: str, truth: str, answer: str, *moments: float) -> bool:
    return is_right(Question(kind, "en", (Turn("?", truth),)), answer, moments=moments)


def test_times_may_be_off_by_one_sampling_interval() -> None:
    truth, moments = "From 1.2 to 4.2 seconds.", (0.2, 1.2, 2.2, 3.2, 4.2, 5.2)
    assert judge("when", truth, "From 2.2 to 3.2 seconds.", *moments)
    assert not judge("when", truth, "From 2.3 to 4.2 seconds.", *moments)
    assert not judge("when", truth, "From 1.2 to 5.3 seconds.", *moments)
    assert not judge("when", truth, "It does not appear.", *moments)


def test_the_interval_is_that_of_the_place_on_the_side_of_the_answer() -> None:
    truth, moments = "From 3.0 to 7.1 seconds.", (0.5, 1.0, 3.0, 3.5, 7.0)
    assert judge("when", truth, "From 1.0 to 3.6 seconds.", *moments)
    assert not judge("when", truth, "From 0.9 to 7.1 seconds.", *moments)
    assert judge("when", truth, "From 3.5 to 7.1 seconds.", *moments)
    assert not judge("when", truth, "From 3.6 to 7.1 seconds.", *moments)
    # Nothing was sampled after the end; it may be as far off as before it.
    assert judge("when", truth, "From 3.0 to 10.6 seconds.", *moments)
    assert not judge("when", truth, "From 3.0 to 10.7 seconds.", *moments)


def test_minutes_may_be_off_by_the_second_they_drop() -> None:
    truth, moments = "From 00:59 to 01:05.", (58, 59, 60, 64, 65, 66)
    assert judge("when in minutes", truth, "From 01:01 to 01:03.", *moments)
    assert not judge("when in minutes", truth, "From 01:02 to 01:05.", *moments)


def test_what_is_shown_may_come_in_any_order_but_whole() -> None:
    truth = "The red circle and the number 47."
    assert judge("what at", truth, "The number 47 and the red circle.", 0.0, 9.0)
    assert not judge("what at", truth, "The red circle.", 0.0, 9.0)
    assert not judge("what at", truth, "The red circle and the number 74.", 0.0, 9.0)


def test_counts_are_not_times() -> None:
    assert not judge("how many", "2 times.", "3 times.", 0.0, 9.0)
