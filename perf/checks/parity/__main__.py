"""`make parity`: random checkpoints × random requests, through the served stages and through transformers.

For each case: identical token ids, identical positions, features within 1e-4, identical greedy continuations of 32
tokens, all in float32. Any difference is printed and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from build.assemble.checkpoint_factory import SHAPES, make_checkpoint
from perf.checks.parity.cases import Case, draw
from perf.checks.parity.decoded import sampled_video, upright_image
from perf.checks.parity.served import Served, serve
from tests.support import reference
from tests.support.serving import Server

CHECKS = ("token ids", "positions", "features", "greedy tokens")
FEATURE_TOLERANCE = 1e-4
GREEDY_TOKENS = 32


def compare(case: Case, served: Served, checkpoint: Path) -> dict[str, str]:
    """The differences: the check's name and how. Empty when everything is the same."""
    processor = reference.load_processor(checkpoint)
    prompt = reference.process(
        checkpoint,
        _reference_messages(case),
        _in_order(case, "video", [sampled_video(v, case.video_options, processor) for v in case.videos]),
        _in_order(case, "image", [upright_image(image) for image in case.images]),
    )
    differences = {}
    if not np.array_equal(served.token_ids, prompt.token_ids):
        ours, theirs = (processor.tokenizer.decode(ids) for ids in (served.token_ids, prompt.token_ids))
        differences["token ids"] = f"served {ours!r}, reference {theirs!r}"
    if not np.array_equal(served.positions, prompt.positions):
        differences["positions"] = f"next to each other in {_first_difference(served.positions, prompt.positions)}"
    expected = reference.features(checkpoint, prompt)
    if served.features.shape != expected.shape:
        differences["features"] = f"shape {served.features.shape}, reference {expected.shape}"
    elif expected.size and (distance := float(np.abs(served.features - expected).max())) > FEATURE_TOLERANCE:
        differences["features"] = f"largest difference {distance:.2g}"
    tokens = reference.generate(checkpoint, prompt, GREEDY_TOKENS)
    if served.generated != tokens:
        differences["greedy tokens"] = f"served {served.generated}, reference {tokens}"
    return differences


def _reference_messages(case: Case) -> list[dict[str, Any]]:
    """The same messages with empty media parts: the reference takes the media in order of appearance."""
    return [
        {
            "role": message["role"],
            "content": message["content"]
            if isinstance(message["content"], str)
            else [
                part if part["type"] == "text" else {"type": part["type"], part["type"]: ""}
                for part in message["content"]
            ],
        }
        for message in case.messages
    ]


def _in_order(case: Case, kind: str, media: list[Any]) -> list[Any]:
    parts = [part for message in case.messages if isinstance(message["content"], list) for part in message["content"]]
    return [media[part[kind]] for part in parts if part["type"] == kind]


def _first_difference(ours: np.ndarray, theirs: np.ndarray) -> str:
    if ours.shape != theirs.shape:
        return f"shape: {ours.shape} and {theirs.shape}"
    column = int(np.argmax((ours != theirs).any(axis=0)))
    return f"column {column}: {ours[:, column].tolist()} and {theirs[:, column].tolist()}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make parity", description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="how many requests (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="draws the checkpoints and the requests (default: 0)")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    console = Console()
    agree: Counter[str] = Counter()
    started = time.monotonic()
    shapes = list(SHAPES.items())[: arguments.cases]
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        for turn, (name, shape) in enumerate(shapes):
            checkpoint = Path(folder) / name
            make_checkpoint(checkpoint, seed=arguments.seed + turn, shape=shape)
            numbers = range(turn, arguments.cases, len(shapes))
            with Server(checkpoint) as server:
                for number in track(numbers, f"checkpoint {turn + 1} of {len(shapes)}, {name}", console=console):
                    case = draw(number, arguments.seed)
                    try:
                        served = serve(case, server.grpc_url, server.credits_directory, GREEDY_TOKENS)
                        differences = compare(case, served, checkpoint)
                    except Exception as error:
                        differences = dict.fromkeys(CHECKS, f"{type(error).__name__}: {error}")
                    agree.update(check for check in CHECKS if check not in differences)
                    for check, how in differences.items():
                        console.print(f"case {number} ({case.description}): {check} differ: {how}", markup=False)
    for check in CHECKS:
        console.print(f"{check:14} identical in {agree[check]} of {arguments.cases} cases", markup=False)
    seconds = time.monotonic() - started
    console.print(
        f"seed {arguments.seed}, {len(shapes)} checkpoints, {seconds:.0f} s, features within {FEATURE_TOLERANCE:g}"
    )
    return 0 if all(agree[check] == arguments.cases for check in CHECKS) else 1


if __name__ == "__main__":
    sys.exit(main())
