"""How often the demo checkpoint is right, asked through the running server about videos that it was never trained on.

    python tests/accuracy.py --seed 0 --videos 300

Everything is as served by default, the sampler too. Answers are checked against the ground truth by rule. The exit
status is 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from build.demo_checkpoint.evaluation import (
    Case,
    changed_checkpoint,
    in_reverse,
    make_case,
    rows_and_columns_swapped,
    starting_later,
    without_deepstack,
)
from build.demo_checkpoint.training.composing import LONGEST_SECONDS
from build.demo_checkpoint.world.questions import Question, is_right
from qwen3_vl_client import Client
from tests.support.serving import Server

CHECKPOINT = Path(__file__).parents[2] / "build" / "demo_checkpoint" / "checkpoint"
SECONDS = (4, 12)
"""The shortest and the longest video."""
LONG_SECONDS = 8 * round(LONGEST_SECONDS)
"""Eight times the longest that was trained on."""
LONG_SHARE = 0.1
BARS: dict[str, float] = {
    "when": 0.95,
    "when in minutes": 0.95,
    "what at": 0.95,
    "not shown": 0.95,
    "where": 0.9,
    "left": 0.9,
    "which number": 0.9,
    "which word": 0.9,
    "how many": 0.9,
    "after": 0.9,
    "before": 0.9,
    "summary": 0.85,
    "follow-up": 0.9,
}
LONG_BARS: dict[str, float] = {"when": 0.75, "what at": 0.75}
SPOKEN_SHARE = 0.2
SPOKEN_BARS: dict[str, float] = {"said at": 0.9, "said when": 0.9}
"""The share of the videos with subtitle lines."""
ABLATION_VIDEOS = 60
SHIFT_SECONDS = 10.0
LEAST_COST = 0.2
"""The least that the loss of a part must cost, in shares of right answers."""

Answers = dict[tuple[str, str], list[bool]]
"""For each kind and language of question, which answers are right."""


@dataclass(frozen=True)
class Row:
    """A line of the table: `right` of `asked`, and the bar for that share (None: only reported)."""

    name: str
    right: int
    asked: int
    bar: float | None

    @property
    def met(self) -> bool:
        return self.bar is None or (self.asked > 0 and self.right >= self.bar * self.asked)

    def __str__(self) -> str:
        share = f"{self.right / self.asked:7.1%} of {self.asked:4}" if self.asked else "   none asked"
        bar = "" if self.bar is None else f"  bar {self.bar:.0%}{'' if self.met else '  MISSED'}"
        return f"{self.name:<40}{share}{bar}"


def make_cases(seed: int, videos: int) -> list[Case]:
    """One video in English, the next in Chinese."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(SECONDS[0], SECONDS[1] + 1, size=videos)
    return [
        make_case([seed, index], seconds=int(length), languages=("zh" if index % 2 else "en",))
        for index, length in enumerate(lengths)
    ]


def make_long_cases(seed: int, videos: int) -> list[Case]:
    return [
        make_case([seed, 1_000_000 + index], seconds=LONG_SECONDS, kinds=tuple(LONG_BARS), languages=("en", "zh"))
        for index in range(max(1, round(LONG_SHARE * videos)))
    ]


def make_spoken_cases(seed: int, videos: int) -> list[Case]:
    kinds = tuple(SPOKEN_BARS)
    return [
        make_case([seed, 2_000_000 + index], seconds=SECONDS[1], kinds=kinds, languages=("en", "zh"), spoken=True)
        for index in range(max(1, round(SPOKEN_SHARE * videos)))
    ]


def ask(client: Client, case: Case, question: Question, video_options: Mapping[str, Any]) -> bool:
    """Asks the last turn, the turns before it given as they should have been."""
    first, *others = question.turns
    video: dict[str, object] = {"type": "video", "video": case.file}
    if case.subtitles:
        video["subtitles"] = case.subtitles
    messages: list[dict[str, object]] = [{"role": "user", "content": [video, {"type": "text", "text": first.question}]}]
    answer = first.answer
    for turn in others:
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": turn.question}]
        answer = turn.answer
    given = client.chat(messages, video_options=video_options, max_tokens=256, temperature=0.0).text
    return is_right(question, given, moments=case.moments)


def ask_all(
    client: Client,
    cases: Iterable[Case],
    kinds: Sequence[str],
    video_options: Callable[[Case], Mapping[str, Any]] = lambda _: {},
) -> Answers:
    asked = [(case, question) for case in cases for question in case.questions if question.kind in kinds]
    with ThreadPoolExecutor(8) as executor:
        answers = executor.map(lambda pair: ask(client, *pair, video_options(pair[0])), asked)
    right: Answers = defaultdict(list)
    for (_, question), answer in zip(asked, answers, strict=True):
        right[question.kind, question.language].append(answer)
    return right


def rows_of(right: Answers, bars: dict[str, float], suffix: str = "") -> list[Row]:
    rows = []
    for kind, bar in bars.items():
        for language in ("en", "zh"):
            answers = right.get((kind, language), [])
            rows.append(Row(f"{kind}, {language}{suffix}", sum(answers), len(answers), bar))
    return rows


def share(right: Answers, kind: str) -> float:
    answers = [answer for (other, _), mine in right.items() if other == kind for answer in mine]
    return sum(answers) / len(answers) if answers else 0.0


def ablation_rows(name: str, kinds: Sequence[str], whole: Answers, without: Answers) -> list[str]:
    """A line for each kind of question that depends on what was taken away; one that ends in MISSED misses its bar."""
    lines = []
    for kind in kinds:
        before, after = share(whole, kind), share(without, kind)
        missed = "" if before - after >= LEAST_COST else "  MISSED"
        lines.append(f"{name}: '{kind}' {before:.1%} -> {after:.1%}{missed}")
    return lines


def shift_row(whole: Answers, shifted: Answers) -> str:
    before, after = share(whole, "when"), share(shifted, "when")
    missed = "" if after >= before - 0.1 else "  MISSED"
    later = f"{SHIFT_SECONDS:.0f} s later"
    return f"video starts {later}: 'when' {before:.1%} -> {after:.1%} right with answers {later}{missed}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the videos and the questions (default: 0)")
    parser.add_argument("--videos", type=int, default=300, help="how many (default: 300)")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="whose answers are judged")
    arguments = parser.parse_args()
    cases = make_cases(arguments.seed, arguments.videos)
    long_cases = make_long_cases(arguments.seed, arguments.videos)
    spoken_cases = make_spoken_cases(arguments.seed, arguments.videos)
    some = cases[:ABLATION_VIDEOS]
    reverse_kinds = ("when", "after", "before")
    with Server(arguments.checkpoint) as server, Client(server.grpc_url) as client:
        rows = rows_of(ask_all(client, cases, tuple(BARS)), BARS)
        rows += rows_of(ask_all(client, long_cases, tuple(LONG_BARS)), LONG_BARS, f", {LONG_SECONDS} s")
        rows += rows_of(ask_all(client, spoken_cases, tuple(SPOKEN_BARS)), SPOKEN_BARS)
        whole = ask_all(client, some, tuple(BARS))
        shifted = ask_all(client, [starting_later(case, SHIFT_SECONDS) for case in some], ("when",))
        lines = [shift_row(whole, shifted)]
        backwards = ask_all(client, map(in_reverse, some), reverse_kinds)
        lines += ablation_rows("frames in reverse order", reverse_kinds, whole, backwards)
    for name, change, kinds in (
        ("DeepStack zeroed", without_deepstack, ("what at", "which number")),
        ("M-RoPE rows and columns swapped", rows_and_columns_swapped, ("where", "left")),
    ):
        with tempfile.TemporaryDirectory() as folder:
            changed = Path(folder) / "checkpoint"
            changed_checkpoint(arguments.checkpoint, changed, change)
            with Server(changed) as server, Client(server.grpc_url) as client:
                lines += ablation_rows(name, kinds, whole, ask_all(client, some, kinds))
    print(*rows, "", f"without a part, {len(some)} videos:", *lines, sep="\n")
    return int(not all(row.met for row in rows) or any(line.endswith("MISSED") for line in lines))


if __name__ == "__main__":
    sys.exit(main())
