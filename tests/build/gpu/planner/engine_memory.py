"""Measures the PyTorch engine's memory at several context lengths.

    python -m tests.build.gpu.planner.engine_memory FOLDER CONTEXT...

Prints a JSON list of `{"context", "settled", "peak"}` in bytes above what the process had before: after a prompt that
fills the context, and at most while it was computed. The folder gets a checkpoint whose stored precision is not the
computed one, so that weights are memory of this process and not a mapped file's.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from pathlib import Path

import numpy as np
import torch

from build.assemble.checkpoint_factory import Shape, make_checkpoint
from engines.protocol import Event, PromptPiece, Request, Tokens
from engines.pytorch.factory import create_engine
from engines.sampling_parameters import SamplingParameters
from tests.support.harness import make_settings

STEP_TOKENS = 256
SHAPE = Shape(
    layers=4, hidden=256, heads=8, kv_heads=8, head_dim=128, intermediate=6144, dtype="bfloat16", deepstack_levels=(1,)
)


def status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def measure(checkpoint: Path, context: int) -> dict[str, int]:
    over = threading.Event()

    def listen(_: str, event: Event) -> None:
        if isinstance(event, Tokens) and event.finish_reason:
            over.set()

    gc.collect()
    before = status("RssAnon")
    # Forgets the peak so far.
    Path("/proc/self/clear_refs").write_text("5")
    resident = status("VmRSS")
    engine = create_engine(make_settings(checkpoint, kv_cache_tokens=context, max_step_tokens=STEP_TOKENS), listen)
    prompt = context - 4
    token_ids = np.full(prompt, 5, np.int32)
    positions = np.tile(np.arange(prompt, dtype=np.int32), (3, 1))
    sampling = SamplingParameters(max_tokens=4, ignore_eos=True)
    engine.open("one", Request(token_ids, positions, (), prompt, sampling))
    for begin in range(0, prompt, STEP_TOKENS):
        piece = slice(begin, min(begin + STEP_TOKENS, prompt))
        rows = torch.zeros(0, 256 * 2)
        engine.feed("one", PromptPiece(begin, token_ids[piece], positions[:, piece], rows, piece.stop == prompt))
    assert over.wait(300)
    settled, peak = status("RssAnon") - before, status("VmHWM") - resident
    engine.close()
    return {"context": context, "settled": settled, "peak": peak}


def main() -> None:
    folder, contexts = Path(sys.argv[1]), [int(context) for context in sys.argv[2:]]
    torch.set_num_threads(1)
    make_checkpoint(folder, shape=SHAPE)
    # Libraries and pools that come with a first engine are not the engine's.
    measure(folder, 512)
    print(json.dumps([measure(folder, context) for context in contexts]))


if __name__ == "__main__":
    main()
