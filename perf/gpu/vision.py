"""`make bench-gpu-vision`: the vision tower on a GPU, at the sampler's resolutions, against what that very card can do.

Three ways to run it: PyTorch as it is, `torch.compile`, and ONNX Runtime's CUDA provider on the graph that TensorRT is
given, where that provider is installed. Weights are random: speed does not depend on their values. Without a GPU,
`--size tiny` runs all of it on the CPU to show that it works; then nothing is written, because no GPU figure exists
until this has run on one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import torch
from rich.console import Console
from rich.table import Table

from build.assemble.checkpoint_config import MERGED_PATCHES, PATCH_VALUES
from build.assemble.checkpoint_factory import SHAPES, Shape, make_checkpoint
from build.assemble.export_vision import INPUTS, export_vision
from build.assemble.vision_tower import VisionTower
from build.gpu.planner.models import Model, find_model, published_sizes
from build.gpu.tensorrt_vision.graph import write_typed_graph
from perf.gpu.engine import SMALL, Limits, Scale, measure_limits, seconds_of
from perf.support import report
from preprocess.chunks.vision_positions import vision_positions
from preprocess.settings import load_settings

# Visual tokens of a chunk (planner/profiles.json) and rows and columns of patches of what the sampler shows: a video
# at the planner's 64 tokens per pair of frames, at 240, and at the cap of 768.
CHUNK_TOKENS = 1024
GRIDS = ((16, 16), (24, 40), (48, 64))
TINY_GRIDS = ((4, 4), (4, 8))

Run = Callable[[], object]
Chunk = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Subject:
    """A tower and where it is run."""

    folder: Path
    model: Model
    device: torch.device

    def chunk(self, rows: int, columns: int, frames: int) -> Chunk:
        """As stage 1 sends it, on the device."""
        settings = load_settings(self.folder)
        positions = vision_positions(rows, columns, settings.vision, settings.patching)
        arrays = (positions.indices, positions.weights, positions.rotary_cos, positions.rotary_sin)
        patches = torch.randint(0, 256, (frames, rows * columns, PATCH_VALUES), dtype=torch.uint8)
        tensors = (patches, *(torch.from_numpy(array) for array in arrays))
        return {name: tensor.to(self.device) for name, tensor in zip(INPUTS, tensors, strict=True)}


def make_subject(size: str, folder: Path, device: torch.device) -> Subject:
    """The tower of a published size, or of the smallest checkpoint, with random weights."""
    if size == "tiny":
        make_checkpoint(folder, shape=SHAPES["small"])
        return Subject(folder, find_model(str(folder)), device)
    entry = published_sizes()[size]
    vision = entry["vision"]
    shape = Shape(
        hidden=entry["text"]["hidden_size"],
        vision_depth=vision["depth"],
        vision_hidden=vision["hidden_size"],
        vision_heads=vision["num_heads"],
        vision_intermediate=vision["intermediate_size"],
        position_embeddings=vision["num_position_embeddings"],
        deepstack_levels=tuple(vision["deepstack_visual_indexes"]),
    )
    make_checkpoint(folder, shape=shape)
    return Subject(folder, find_model(size), device)


def ways(subject: Subject) -> Iterator[tuple[str, Callable[[Chunk], Run]]]:
    """Each way's name, and what makes a run of a chunk."""
    cuda = subject.device.type == "cuda"
    tower = VisionTower.load(subject.folder).to(subject.device)
    for module in tower.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)
    # Where there is no GPU, only that the tower can be traced is of interest.
    compiled = torch.compile(tower, dynamic=False, backend="inductor" if cuda else "eager")

    def in_pytorch(function: Callable[..., torch.Tensor]) -> Callable[[Chunk], Run]:
        def prepared(chunk: Chunk) -> Run:
            def run() -> torch.Tensor:
                with torch.autocast(subject.device.type, torch.bfloat16):
                    return function(**chunk)

            return run

        return prepared

    yield "PyTorch, bf16", in_pytorch(tower)
    yield "torch.compile, bf16", in_pytorch(compiled)
    provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
    if provider in onnxruntime.get_available_providers():
        yield "ONNX Runtime, fp16", _in_onnxruntime(subject, provider)


def _in_onnxruntime(subject: Subject, provider: str) -> Callable[[Chunk], Run]:
    graph = subject.folder / "onnx" / "vision.onnx"
    export_vision(subject.folder, graph)
    typed = graph.with_name("vision.fp16.onnx")
    write_typed_graph(graph, typed, "fp16")
    session = onnxruntime.InferenceSession(typed, providers=[provider])

    def prepared(chunk: Chunk) -> Run:
        binding = session.io_binding()
        for name, tensor in chunk.items():
            element = str(tensor.dtype).removeprefix("torch.")
            binding.bind_input(name, tensor.device.type, 0, element, tensor.shape, tensor.data_ptr())
        binding.bind_output("features", subject.device.type)
        return lambda: session.run_with_iobinding(binding)

    return prepared


def operations(model: Model, frames: int, patches: int) -> int:
    """Multiplications and additions for `frames` temporal patches: linear layers, attention within a frame, mergers."""
    hidden, merged = model.vision.hidden, MERGED_PATCHES * model.vision.hidden
    block = 2 * (4 * hidden**2 + 2 * hidden * model.vision.intermediate) + 4 * patches * hidden
    rows = 1 + len(model.vision.deepstack_levels)
    mergers = rows * 2 * (merged**2 + merged * model.hidden) // MERGED_PATCHES
    return frames * patches * (2 * PATCH_VALUES * hidden + model.vision.depth * block + mergers)


Row = tuple[str, str, str, float, float, float]


def measure(size: str, device: torch.device, grids: tuple[tuple[int, int], ...], limits: Limits) -> list[Row]:
    """Rows (size, resolution, way, milliseconds of a chunk, frames of video per second, share of the limit in %)."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        subject = make_subject(size, Path(folder), device)
        for way, prepare in ways(subject):
            for height, width in grids:
                patches = height * width
                frames = CHUNK_TOKENS * MERGED_PATCHES // patches
                seconds = seconds_of(prepare(subject.chunk(height, width, frames)), device)
                share = 100 * operations(subject.model, frames, patches) / seconds / limits.matrix
                # A temporal patch is two frames.
                rows.append((size, f"{16 * width}x{16 * height}", way, 1e3 * seconds, 2 * frames / seconds, share))
    return rows


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-gpu-vision", description=__doc__)
    parser.add_argument("--size", nargs="+", default=["4B", "8B"], choices=["tiny", *published_sizes()])
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tiny = arguments.size == ["tiny"]
    if device.type == "cpu" and not tiny:
        sys.exit("no GPU: PyTorch sees none, and no GPU figure exists until this runs on one; --size tiny tries it")
    limits = measure_limits(device, SMALL if tiny else Scale())
    rows = [row for size in arguments.size for row in measure(size, device, TINY_GRIDS if tiny else GRIDS, limits)]
    columns = ("size", "resolution", "way", "ms per chunk", "frames per second", "share of the matrix limit, %")
    if tiny:
        table = Table(*columns, title="gpu.vision, tried on a tiny tower")
        for row in rows:
            table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else cell for cell in row))
        Console(width=120).print(table)
        print("This only shows that the measurement works. No GPU figure exists until it runs on a GPU.")
        return
    report.finish(
        "bench-gpu-vision",
        workload={"chunk_tokens": CHUNK_TOKENS, "matrix_flops": limits.matrix},
        columns=columns,
        rows=rows,
        figures=[],
    )


if __name__ == "__main__":
    main()
