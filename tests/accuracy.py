"""How often the demo checkpoint is right, asked through the running server about videos that it was never trained on.

    python tests/accuracy.py --seed 0 --videos 300

Answers are checked against the ground truth by rule. The videos are sampled evenly, as the checkpoint was
trained. The exit status is 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from demo_checkpoint.evaluation import ABLATIONS, Case, exact_shares, load_checkpoint, make_case
from demo_checkpoint.questions import Question, is_right
from qwen3_vl_client import Client, VideoOptions
from serving import Server

CHECKPOINT = Path(__file__).parents[1] / "build" / "demo_checkpoint" / "checkpoint"
SECONDS = (4, 12)
"""The shortest and the longest video; the longest is also the longest that most of the training saw."""
LONG = 8
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
SHIFT_SECONDS = 10.0
LEAST_COST = 0.2
"""What the loss of a part must cost, in shares of right answers."""


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
    rng = np.random.default_rng(seed)
    lengths = rng.integers(SECONDS[0], SECONDS[1] + 1, size=videos)
    return [make_case([seed, index], seconds=int(length)) for index, length in enumerate(lengths)]


def make_long_cases(seed: int, videos: int) -> list[Case]:
    count = max(1, round(LONG_SHARE * videos))
    return [make_case([seed, 1_000_000 + index], seconds=LONG * SECONDS[1]) for index in range(count)]


def ask(client: Client, case: Case, question: Question) -> bool:
    """Asks the last turn, the turns before it given as they should have been."""
    first, *others = question.turns
    messages: list[dict[str, object]] = [
        {"role": "user", "content": [{"type": "video", "video": case.file}, {"type": "text", "text": first.question}]}
    ]
    answer = first.answer
    for turn in others:
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": turn.question}]
        answer = turn.answer
    given = client.chat(messages, video_options=VideoOptions(sampler="uniform"), max_tokens=256, temperature=0.0).text
    return is_right(question, given, tolerance=case.patch_seconds)


def ask_all(client: Client, cases: Iterable[Case], kinds: Sequence[str]) -> dict[tuple[str, str], list[bool]]:
    """For each kind and language of question, which answers are right."""
    asked = [(case, question) for case in cases for question in case.questions if question.kind in kinds]
    with ThreadPoolExecutor(8) as executor:
        answers = executor.map(lambda pair: ask(client, *pair), asked)
    right: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for (_, question), answer in zip(asked, answers, strict=True):
        right[question.kind, question.language].append(answer)
    return right


def rows_of(right: dict[tuple[str, str], list[bool]], bars: dict[str, float], suffix: str = "") -> list[Row]:
    rows = []
    for kind, bar in bars.items():
        for language in ("en", "zh"):
            answers = right.get((kind, language), [])
            rows.append(Row(f"{kind}, {language}{suffix}", sum(answers), len(answers), bar))
    return rows


def ablation_rows(checkpoint: Path, cases: Sequence[Case]) -> list[str]:
    """What each part is worth, measured without the server, answers word for word; a line that ends in MISSED misses
    its bar."""
    tower, model = load_checkpoint(checkpoint)
    whole = exact_shares(tower, model, cases)
    lines = []
    shifted = exact_shares(tower, model, cases, shift=SHIFT_SECONDS).get("when", 0.0)
    missed = "" if shifted >= whole.get("when", 0.0) - 0.1 else "  MISSED"
    lines.append(
        f"timestamps {SHIFT_SECONDS:.0f} s later: 'when' {SHIFT_SECONDS:.0f} s later {shifted:.1%},"
        f" unshifted {whole.get('when', 0.0):.1%}{missed}"
    )
    for name, (_, kinds) in ABLATIONS.items():
        without = exact_shares(tower, model, cases, ablation=name)
        for kind in kinds:
            cost = whole.get(kind, 0.0) - without.get(kind, 0.0)
            missed = "" if cost >= LEAST_COST else "  MISSED"
            lines.append(f"{name}: '{kind}' {whole.get(kind, 0.0):.1%} -> {without.get(kind, 0.0):.1%}{missed}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the videos and the questions (default: 0)")
    parser.add_argument("--videos", type=int, default=300, help="how many (default: 300)")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="whose answers are judged")
    arguments = parser.parse_args()
    cases = make_cases(arguments.seed, arguments.videos)
    long_cases = make_long_cases(arguments.seed, arguments.videos)
    with Server(arguments.checkpoint) as server, Client(server.grpc_url) as client:
        rows = rows_of(ask_all(client, cases, tuple(BARS)), BARS)
        rows += rows_of(ask_all(client, long_cases, tuple(LONG_BARS)), LONG_BARS, f", {LONG} times longer")
    ablations = ablation_rows(arguments.checkpoint, cases)
    print(*rows, "", "without a part, answers word for word:", *ablations, sep="\n")
    return int(not all(row.met for row in rows) or any(line.endswith("MISSED") for line in ablations))


if __name__ == "__main__":
    sys.exit(main())
