"""Train the demo checkpoint from nothing, go on where a training was interrupted, or go on from an exported checkpoint.

python -m build.demo_checkpoint.train --device auto
"""

import argparse
from pathlib import Path

import torch

from build.demo_checkpoint.export import export, load_exported
from build.demo_checkpoint.initialisation.decoder import initialise_decoder
from build.demo_checkpoint.model import LanguageModel, VisionTower
from build.demo_checkpoint.training.composing import Bank, make_bank
from build.demo_checkpoint.training.decoder_training import train_decoder
from build.demo_checkpoint.training.pool import Views, load_pool
from build.demo_checkpoint.training.progress import save
from build.demo_checkpoint.training.schedule import Schedule, model_shape
from build.demo_checkpoint.training.vision_training import fold_readouts, readout_strength, train_vision_tower

STATE = Path(__file__).parents[2] / ".cache" / "demo_checkpoint"


def train(schedule: Schedule) -> tuple[VisionTower, LanguageModel]:
    """Trains, or goes on from the state in the schedule's folder."""
    torch.manual_seed(schedule.seed)
    pool = schedule.folder / "pool"
    views = load_pool(pool, videos=schedule.pool_videos, seed=schedule.seed, workers=schedule.workers)
    if schedule.start_from:
        tower, model = load_exported(schedule.start_from, model_shape())
        tower = tower.to(schedule.device).eval()
    else:
        tower, readouts = train_vision_tower(schedule, views)
        fold_readouts(tower, readouts, readout_strength(tower, readouts, views, schedule.device))
        model = LanguageModel(model_shape())
        initialise_decoder(model)
    return tower, train_decoder(schedule, model.to(schedule.device), _bank(schedule, tower, views))


def _bank(schedule: Schedule, tower: VisionTower, views: Views) -> Bank:
    path = schedule.folder / "bank.pt"
    if not path.exists():
        save(path, make_bank(tower, views, schedule.device).rows)
    return Bank(torch.load(path), views.cells, views.scenes, views.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo checkpoint; goes on where it was interrupted.")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--seed", type=int, default=Schedule.seed, help="of everything that is drawn")
    parser.add_argument("--steps", type=int, default=Schedule.decoder_steps, help="of the decoder's training")
    parser.add_argument("--workers", type=int, default=Schedule.workers, help="processes that make videos")
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
        Schedule(
            arguments.state,
            torch.device(device),
            seed=arguments.seed,
            workers=arguments.workers,
            decoder_steps=arguments.steps,
            start_from=arguments.start_from,
        )
    )
    if arguments.export:
        export(arguments.export, tower, model)


if __name__ == "__main__":
    main()
