"""Train the demo checkpoint from nothing, go on where a training was interrupted, or go on from an exported checkpoint.

python build/train_demo_checkpoint.py --device auto
"""

import argparse
from pathlib import Path

import torch

from build.demo_checkpoint.export import export
from build.demo_checkpoint.training.training import Plan, train

STATE = Path(__file__).parents[2] / ".cache" / "demo_checkpoint"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo checkpoint; goes on where it was interrupted.")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--seed", type=int, default=Plan.seed, help="of everything that is drawn")
    parser.add_argument("--steps", type=int, default=Plan.telling_steps, help="of the decoder's training")
    parser.add_argument("--workers", type=int, default=Plan.workers, help="processes that make videos")
    parser.add_argument("--threads", type=int, default=None, help="of PyTorch on a CPU (default: all cores)")
    parser.add_argument("--state", type=Path, default=STATE, help="folder of the pool and the training state")
    parser.add_argument("--start-from", type=Path, default=None, help="an exported checkpoint (default: nothing)")
    parser.add_argument("--export", type=Path, default=None, help="folder that the trained checkpoint is written to")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    tower, model = train(
        Plan(
            arguments.state,
            torch.device(device),
            seed=arguments.seed,
            workers=arguments.workers,
            telling_steps=arguments.steps,
            start_from=arguments.start_from,
        )
    )
    if arguments.export:
        export(arguments.export, tower, model)


if __name__ == "__main__":
    main()
