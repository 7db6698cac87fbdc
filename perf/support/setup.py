"""The set-up of benchmarks: their command line, a random checkpoint, a server with a client."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from build.assemble.checkpoint_factory import Shape, make_checkpoint
from qwen3_vl_client import Client, Timeouts
from tests.support.serving import Server

DEMO_SHAPE = Shape(
    layers=5, hidden=256, heads=8, kv_heads=4, intermediate=768, vision_hidden=128, vision_intermediate=384
)
"""About the size of the trained demo checkpoint, which is what a CPU serves by default."""


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the description's lines, and tells defaults."""


def command_line(target: str, description: str | None) -> argparse.ArgumentParser:
    """The arguments of `make TARGET`."""
    return argparse.ArgumentParser(prog=f"make {target}", description=description, formatter_class=_HelpFormatter)


@contextmanager
def random_checkpoint(shape: Shape) -> Iterator[tuple[Path, Path]]:
    """A temporary folder, and the checkpoint of `shape` in it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        make_checkpoint(folder / "checkpoint", shape=shape)
        yield folder, folder / "checkpoint"


@contextmanager
def served(
    checkpoint: Path,
    settings: Mapping[str, str] | None = None,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 (frozen)
) -> Iterator[tuple[Server, Client]]:
    """A server of the checkpoint, and a client of it."""
    with Server(checkpoint, settings) as server, Client(server.grpc_url, timeouts=timeouts) as client:
        yield server, client
