"""The decoder's Triton kernels as machine code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

# Most shared memory of a block on sm_86 and sm_89, the cards with the least (CUDA C++ Programming Guide, table of
# technical specifications per compute capability).
SHARED_BYTES = 99 * 1024


def test_the_kernels_compile_for_every_card(tmp_path: Path) -> None:
    """To machine code, for the shapes of all published sizes, with a cache in 16 bits and in 8: no GPU is needed."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    script = Path(__file__).with_name("compile_kernels.py")
    ran = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    compiled = json.loads(ran.stdout)
    kernels = {"_attend", "_merge", "_add_norm", "_norm_rotate", "_gate"}
    wanted = {(card, kernel) for card in ("8.0", "8.6", "8.9", "9.0") for kernel in kernels}
    assert {(kernel["card"], kernel["kernel"]) for kernel in compiled} == wanted
    for kernel in compiled:
        assert kernel["machine_code_bytes"] > 0
        assert kernel["shared_bytes"] <= SHARED_BYTES, kernel
