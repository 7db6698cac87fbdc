"""Compiles the decoder's Triton kernels for the cards of all profiles and the shapes of all sizes, and prints what came
out, as JSON. Without TRITON_INTERPRET, hence in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from build.gpu.planner.models import published_sizes
from build.gpu.planner.profiles import profiles
from engines.pytorch.model.fused_operations import GATED, _add_norm, _gate, _norm_rotate
from engines.pytorch.model.table_attention import TILE, _attend, _merge

THREADS_PER_WARP = 32
BLOCK_SIZE = 16
OTHER_TYPES = {
    "tables": "*i32",
    "rows": "*i64",
    "lengths": "*i64",
    "results": "*fp32",
    "logarithms": "*fp32",
    "factor": "fp32",
    "eps": "fp32",
    "slots": "i32",
    "table_width": "i32",
    "query_stride": "i32",
    "stride": "i32",
    "width": "i32",
}
"""Of parameters that are no tensors in bfloat16."""


def source(kernel: triton.JITFunction, types: dict[str, str] | None = None, **constants: object) -> ASTSource:
    known = dict.fromkeys(constants, "constexpr") | OTHER_TYPES | (types or {})
    return ASTSource(kernel, {name: known.get(name, "*bf16") for name in kernel.arg_names}, constants)


def sources() -> Iterator[ASTSource]:
    texts = [size["text"] for size in published_sizes().values()]
    for width in sorted({text["head_dim"] for text in texts}):
        for group in sorted({text["num_attention_heads"] // text["num_key_value_heads"] for text in texts}):
            constants = {"GROUP": group, "QUERIES": 16, "WIDTH": width, "BLOCK": BLOCK_SIZE, "TOKENS": TILE}
            yield source(_attend, **constants, SCALED=False)
            int8 = {"keys": "*i8", "values": "*i8", "key_scales": "*fp16", "value_scales": "*fp16"}
            yield source(_attend, int8, **constants, SCALED=True)
        for parts in (1, 64):
            yield source(_merge, PARTS=parts, WIDTH=width)
        yield source(_norm_rotate, WIDTH=width)
    for columns in sorted({triton.next_power_of_2(text["hidden_size"]) for text in texts}):
        for adds in (False, True):
            yield source(_add_norm, COLUMNS=columns, ADDS=adds)
    yield source(_gate, COLUMNS=GATED)


def main() -> None:
    compiled = []
    for card in sorted({profile.compute_capability for profile in profiles().values()} - {""}):
        target = GPUTarget("cuda", int(card.replace(".", "")), THREADS_PER_WARP)
        for kernel in (triton.compile(one, target=target) for one in sources()):
            compiled.append(
                {
                    "card": card,
                    "kernel": kernel.metadata.name,
                    "machine_code_bytes": len(kernel.asm["cubin"]),
                    "shared_bytes": kernel.metadata.shared,
                }
            )
    print(json.dumps(compiled))


if __name__ == "__main__":
    main()
