"""The parts of the attacks' figures: results, honest clients' times, processes, guesses, and cases."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from perf.attack.__main__ import honest_figures, machine_figures
from perf.attack.expect import GotThroughError, NotRunError, expect
from perf.attack.honest import Asked
from perf.attack.kinds.oracle import Guess, finding
from perf.attack.processes import Watched
from perf.attack.table import TABLE, Attack, chosen, outcome
from perf.attack.tensor_writing import make

SOME = Attack("some", "door", "nothing happens", (), lambda field: "", lasting=False)


def test_an_attack_holds_unless_it_tells_otherwise() -> None:
    assert outcome(SOME, lambda: "refused").held is True
    through = outcome(SOME, lambda: str(expect(False, "it was answered")))
    assert (through.held, through.told) == (False, "it was answered")


def test_an_error_of_the_attack_itself_counts_as_got_through() -> None:
    def fails() -> str:
        raise ConnectionRefusedError("nobody listens")

    assert outcome(SOME, fails).held is False


def test_an_attack_that_cannot_be_tried_neither_holds_nor_gets_through() -> None:
    def cannot() -> str:
        raise NotRunError("no rights")

    result = outcome(SOME, cannot)
    assert (result.held, result.told) == (None, "not run: no rights")


def test_no_two_attacks_have_the_same_name_and_door() -> None:
    names = Counter((one.door, one.name) for one in TABLE)
    assert [name for name, count in names.items() if count > 1] == []
    assert len(names) > 90


def test_attacks_are_chosen_by_door_and_name() -> None:
    assert {one.door for one in chosen("^metrics: ")} == {"metrics"}
    assert [one.name for one in chosen("what /docs loads")] == ["what /docs loads"]


def test_honest_times_are_compared_by_kind() -> None:
    calm = [Asked("text", started, 0.1, "") for started in range(100)]
    attacked = [Asked("text", 100.0 + started, 0.3, "") for started in range(100)]
    ratio, failed = honest_figures([*calm, *attacked, Asked("text", 150.0, 9.0, "refused")], began=100.0)
    assert ratio.value == pytest.approx(3)
    assert not ratio.holds
    assert failed.value == 1


def test_a_process_that_ends_is_found_dead_once_and_its_memory_is_watched() -> None:
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        watched = Watched()
        pids = {"self": os.getpid(), "other": other.pid}
        assert watched.look(pids) == []
        before = watched.forget_peaks(pids)
        content = bytearray(os.urandom(1024)) * (64 * 1024)
        del content
        assert watched.grown_mib(before)["self"] > 50
        other.communicate(b"")
    assert watched.look({"self": os.getpid()}) == ["other"]
    assert watched.look({"self": os.getpid()}) == []
    figures = {figure.name: figure.value for figure in machine_figures(watched, log_bytes=2**20)}
    assert figures["processes that died"] == 1
    assert figures["self: peak growth of memory"] > 50
    assert figures["growth of logs"] == 1


def guesses(right_cached: int, right_seconds: float) -> list[Guess]:
    """One right and one wrong guess each of ninety secrets."""
    noise = [number / 1000 for number in range(90)]
    wrong = [Guess(number, False, 30, 0.1 + more) for number, more in enumerate(noise)]
    right = [Guess(number, True, right_cached, right_seconds + more) for number, more in enumerate(noise)]
    return [*wrong, *right]


def test_guesses_hold_that_nothing_tells_apart() -> None:
    assert finding("PINs", guesses(30, 0.1)).held


def test_guesses_that_are_told_by_cached_tokens_do_not_hold() -> None:
    told = finding("PINs", guesses(31, 0.1))
    assert (told.differing, told.held) == (90, False)


def test_guesses_that_are_told_by_their_times_do_not_hold() -> None:
    told = finding("PINs", guesses(30, 0.05))
    assert told.p_times < 0.01
    assert not told.held


def test_one_guess_without_its_like_is_judged_by_rank_alone() -> None:
    alone = [Guess(number, number < 12, 30 + number % 3, 0.1 + number % 5 / 100) for number in range(24)]
    assert finding("videos", alone).held
    told = [Guess(number, number < 12, 300 if number < 12 else 30, 0.1) for number in range(24)]
    assert finding("videos", told).told_by_tokens


def test_a_case_is_made_again_from_its_seed_and_number() -> None:
    assert make(3, 17) == make(3, 17)
    assert make(3, 17) != make(4, 17)


def test_cases_reach_every_model_by_every_door() -> None:
    cases = [make(0, number) for number in range(2000)]
    assert {case.model for case in cases} == {"qwen3_vl", "video_preprocess", "vision_encoder", "decoder"}
    assert {case.door for case in cases} == {"infer", "stream", "http"}
    assert {case.path.rpartition("/")[2] for case in cases} == {"", "infer", "generate", "generate_stream"}
    assert any(case.short for case in cases)
    assert len({case.content for case in cases}) > 1900


def test_most_cases_are_well_formed_enough_to_be_looked_into() -> None:
    """A fuzz whose every case is refused as no JSON would test nothing but a parser."""
    bodies = [case for case in (make(0, number) for number in range(2000)) if case.path.endswith("/generate")]
    read = 0
    for case in bodies:
        try:
            json.loads(case.content)
        except (ValueError, RecursionError):
            continue
        read += 1
    assert read > 0.8 * len(bodies)


def test_what_is_expected_is_raised_in_words() -> None:
    with pytest.raises(GotThroughError, match="it was answered"):
        expect(False, "it was answered")
