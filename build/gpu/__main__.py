"""Build the repository that serves a checkpoint on a particular GPU.

    python -m build.gpu --gpu rtx4090d --model Qwen/Qwen3-VL-4B-Instruct --output DIR
    python -m build.gpu --gpu h100 --model 8B --output DIR --dry-run

Runs in the builder image, on the GPU that is built for. `--dry-run` prints everything that would be done, anywhere, and
needs neither the checkpoint nor a GPU.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from build.assemble.published_checkpoint import check_checkpoint, find_checkpoint
from build.gpu.fit import add_wish, wished_fit
from build.gpu.planner.models import published_sizes
from build.gpu.planner.planning import Refusal
from build.gpu.planner.report import describe


def main() -> int:
    parser = argparse.ArgumentParser(prog="build.gpu", description="Build a model repository for a particular GPU.")
    add_wish(parser, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder for the repository and what it is made from")
    parser.add_argument("--quantised", type=Path, help="a checkpoint that ModelOpt has quantised already")
    parser.add_argument("--media-root", default="", help="the folder below which video_uri may name files, as served")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    arguments = parser.parse_args()
    if not arguments.model:
        parser.error("argument --model is empty: a checkpoint folder, hub name or published size (4B) is accepted")
    try:
        return build(arguments)
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def build(arguments: argparse.Namespace) -> int:
    """Finds what fits, then runs or prints the steps. 0: built, 1: does not fit."""
    # PyTorch and ONNX come with these, and a dry run is to answer at once where the arguments are wrong.
    from build.gpu.build import Build, steps
    from build.gpu.steps import run_steps

    name = published_sizes().get(arguments.model, {}).get("repository", arguments.model)
    checkpoint = Path(name) if arguments.dry_run else find_checkpoint(name)
    if not arguments.dry_run:
        check_checkpoint(checkpoint)
    fit = wished_fit(arguments, str(checkpoint))
    _report(describe(fit))
    if isinstance(fit, Refusal):
        return 1
    made = Build(fit, checkpoint, arguments.quantised, arguments.output, _report, arguments.media_root)
    run_steps(steps(made), made.work / "stamps", _report, dry_run=arguments.dry_run)
    _report(f"{'would be' if arguments.dry_run else 'is'} ready: {made.repository}")
    return 0


def _report(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
