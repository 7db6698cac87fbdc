"""The server that is put under load: one of our own on free ports, or one that runs already."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from build.assemble.checkpoint_factory import Shape, make_checkpoint
from build.assemble.published_checkpoint import find_checkpoint
from build.serve.supervisor.supervisor import Limits
from perf.support import report
from perf.support.setup import DEMO_SHAPE
from tests.support.serving import Server, assemble_checkpoint

CACHE = Path(__file__).parents[3] / ".cache" / "load"

HEAVY = Shape(layers=8, hidden=1024, heads=16, kv_heads=4, head_dim=64, intermediate=3072)
"""As in any real model, a step's time is that of reading the weights: 80 million parameters, more than caches hold."""

ONE_THREAD_EACH = {"decoder.threads": "1", "vision_encoder.threads": "1"}
"""Threads cost so small a model more than they give; the stages use the cores side by side."""


@dataclass(frozen=True)
class Target:
    """Where a server answers: gRPC as `host:port`, HTTP and metrics as `http://host:port`."""

    grpc: str
    http: str
    metrics: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every run: `--model`, `--results`."""
    parser.add_argument("--model", help="a checkpoint: folder or hub name (default: a small random one)")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="where JSON goes")


def own(
    model: str | None, settings: Mapping[str, str], *, shape: Shape = DEMO_SHAPE, limits: Limits | None = None
) -> Server:
    """A server of our own for a `with` block. Without a `model` it serves a random checkpoint of `shape`."""
    checkpoint, settings = served(model, settings, shape)
    return Server(checkpoint, settings, assemble=assemble, limits=limits)


def served(model: str | None, settings: Mapping[str, str], shape: Shape = DEMO_SHAPE) -> tuple[Path, Mapping[str, str]]:
    """The checkpoint, and its settings: `model`, a folder or hub name, or a random one of `shape`."""
    if model is not None:
        return find_checkpoint(model), settings
    checkpoint = CACHE / f"checkpoint-{shape.layers}x{shape.hidden}"
    if not (checkpoint / "config.json").is_file():
        draft = checkpoint.with_name(f"{checkpoint.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        make_checkpoint(draft, shape=shape)
        draft.rename(checkpoint)
    return checkpoint, {**ONE_THREAD_EACH, **settings}


@contextmanager
def attached_or_own(attach: str | None, model: str | None, settings: Mapping[str, str]) -> Iterator[Target]:
    """The server on the host `attach` with Triton's default ports, or one of our own."""
    if attach:
        yield Target(f"{attach}:8001", f"http://{attach}:8000", f"http://{attach}:8002")
        return
    with own(model, settings) as server:
        yield Target(server.grpc_url, server.http_url, server.metrics_url)


def assemble(checkpoint: Path, destination: Path, settings: Mapping[str, str]) -> None:
    """Makes the repository. Keeps the exported vision tower between runs: exporting takes longer than starting."""
    kept = CACHE / "towers" / checkpoint.name
    tower = Path("vision_encoder", "1", "checkpoint")
    if kept.is_dir():
        shutil.copytree(kept, destination / tower)
    assemble_checkpoint(checkpoint, destination, settings)
    shutil.copytree(destination / tower, kept, dirs_exist_ok=True)
