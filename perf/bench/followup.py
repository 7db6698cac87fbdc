"""`make bench-followup`: a second question about a ten-minute video, through the server.

The first question has the video decoded, encoded and prefilled. Those after it find its blocks held: stage 1, which
remembers what it read of the file, sends their text only. The same questions are asked of a server without the prefix
cache too: the answers' tokens must be the same.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from perf.support import report
from perf.support.setup import DEMO_SHAPE, command_line, random_checkpoint, served
from qwen3_vl_client import Answer
from tests.support.media import make_video

SECONDS = 600
QUESTIONS = ("What happens?", "When does it begin?", "What is seen first?", "How does it end?")


def ask_all(checkpoint: Path, video: bytes, tokens: int, *, prefix_cache: bool) -> list[Answer]:
    """The questions one after the other, on a server that has seen nothing yet."""
    with served(checkpoint, {"decoder.prefix_cache": str(prefix_cache).lower()}) as (_, client):
        return [
            client.ask(video, text, temperature=0.0, max_tokens=tokens, ignore_eos=True, return_token_ids=True)
            for text in QUESTIONS
        ]


def first_token(answer: Answer) -> float:
    assert answer.usage.seconds is not None
    return answer.usage.seconds["first_token"]


def main() -> None:
    parser = command_line("bench-followup", __doc__)
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    arguments = parser.parse_args()
    with random_checkpoint(DEMO_SHAPE) as (folder, checkpoint):
        path = folder / "video.mp4"
        make_video(path, width=256, height=192, frames=SECONDS * 5, fps=5, key_frame_interval=25)
        video = path.read_bytes()
        shared, alone = (
            ask_all(checkpoint, video, arguments.tokens, prefix_cache=prefix_cache) for prefix_cache in (True, False)
        )
    same = sum(one.usage.token_ids == other.usage.token_ids for one, other in zip(shared, alone, strict=True))
    first, *later = map(first_token, shared)
    report.finish(
        "bench-followup",
        workload={**vars(arguments), "shape": str(DEMO_SHAPE), "seconds": SECONDS, "questions": QUESTIONS},
        columns=("question", "prompt tokens", "held", "first token, s", "without the cache, s"),
        rows=[
            (text, one.usage.prompt_tokens, one.usage.cached_tokens, first_token(one), first_token(other))
            for text, one, other in zip(QUESTIONS, shared, alone, strict=True)
        ],
        figures=[
            report.Figure("first token, later / first question", statistics.median(later) / first, "", at_most=0.03),
            report.Figure("answers with identical tokens", same, f"of {len(QUESTIONS)}", at_least=len(QUESTIONS)),
        ],
    )


if __name__ == "__main__":
    main()
