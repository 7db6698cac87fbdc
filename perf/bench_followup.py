"""`make bench-followup`: a second question about a ten-minute video, through the server.

The first question has the video decoded, encoded and prefilled. Those after it find its blocks held: stage 1, which
remembers what it read of the file, sends their text only. The same questions are asked of a server without the prefix
cache too: the answers' tokens must be the same.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from build.assemble.checkpoint_factory import Shape, make_checkpoint
from perf import report
from qwen3_vl_client import Answer, Client
from tests.support.media import make_video
from tests.support.serving import Server

SHAPE = Shape(layers=5, hidden=256, heads=8, kv_heads=4, intermediate=768, vision_hidden=128, vision_intermediate=384)
"""About the size of the trained demo checkpoint."""
SECONDS = 600
QUESTIONS = ("What happens?", "When does it begin?", "What is seen first?", "How does it end?")


def ask_all(checkpoint: Path, video: bytes, tokens: int, *, prefix_cache: bool) -> list[Answer]:
    """The questions one after the other, on a server that has seen nothing yet."""
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as memory, ExitStack() as stack:
        settings = {"decoder.prefix_cache": str(prefix_cache).lower(), "video_preprocess.memory_directory": memory}
        client = stack.enter_context(Client(stack.enter_context(Server(checkpoint, settings)).grpc_url))
        return [
            client.ask(video, text, temperature=0.0, max_tokens=tokens, ignore_eos=True, return_token_ids=True)
            for text in QUESTIONS
        ]


def first_token(answer: Answer) -> float:
    assert answer.usage.seconds is not None
    return answer.usage.seconds["first_token"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-followup", description=__doc__)
    parser.add_argument("--tokens", type=int, default=32, help="of each answer (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        checkpoint, path = Path(folder) / "checkpoint", Path(folder) / "video.mp4"
        make_checkpoint(checkpoint, shape=SHAPE)
        make_video(path, width=256, height=192, frames=SECONDS * 5, fps=5, key_frame_interval=25)
        video = path.read_bytes()
        shared, alone = (
            ask_all(checkpoint, video, arguments.tokens, prefix_cache=prefix_cache) for prefix_cache in (True, False)
        )
    same = sum(one.usage.token_ids == other.usage.token_ids for one, other in zip(shared, alone, strict=True))
    first, *later = map(first_token, shared)
    report.finish(
        "bench-followup",
        workload={**vars(arguments), "shape": str(SHAPE), "seconds": SECONDS, "questions": QUESTIONS},
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
    sys.exit(main())
