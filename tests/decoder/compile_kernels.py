"""Compiles the decoder's Triton kernels for the cards of all profiles; prints what came out, as JSON. Without
TRITON_INTERPRET, hence in a process of its own."""

from __future__ import annotations

import json

import triton
from engine.pytorch.table_attention import TILE, _attend, _merge
from planner.models import published_sizes
from planner.profiles import profiles
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

THREADS_PER_WARP = 32
CONSTANTS = ("GROUP", "QUERIES", "WIDTH", "BLOCK", "TOKENS", "SCALED")
"""Of `_attend`; the types of its other parameters, for queries in bfloat16:"""
TYPES = {
    "queries": "*bf16",
    "tables": "*i32",
    "rows": "*i64",
    "lengths": "*i64",
    "results": "*fp32",
    "logarithms": "*fp32",
    "factor": "fp32",
    "slots": "i32",
    "table_width": "i32",
}


def attention(group: int, width: int, *, int8: bool) -> ASTSource:
    cached, scales = ("*i8", "*fp16") if int8 else ("*bf16", "*bf16")
    types = TYPES | {"keys": cached, "values": cached, "key_scales": scales, "value_scales": scales}
    signature = {name: types.get(name, "constexpr") for name in _attend.arg_names}
    return ASTSource(_attend, signature, dict(zip(CONSTANTS, (group, 16, width, 16, TILE, int8), strict=True)))


def merging(parts: int, width: int) -> ASTSource:
    signature = {
        "results": "*fp32",
        "logarithms": "*fp32",
        "outputs": "*bf16",
        "PARTS": "constexpr",
        "WIDTH": "constexpr",
    }
    return ASTSource(_merge, signature, {"PARTS": parts, "WIDTH": width})


def main() -> None:
    cards = sorted({profile.compute_capability for profile in profiles().values() if profile.compute_capability})
    shapes = {
        (size["text"]["num_attention_heads"] // size["text"]["num_key_value_heads"], size["text"]["head_dim"])
        for size in published_sizes().values()
    }
    sources = [attention(*shape, int8=int8) for shape in sorted(shapes) for int8 in (False, True)]
    sources += [merging(parts, width) for parts in (1, 64) for width in sorted({width for _, width in shapes})]
    compiled = []
    for card in cards:
        target = GPUTarget("cuda", int(card.replace(".", "")), THREADS_PER_WARP)
        for source in sources:
            kernel = triton.compile(source, target=target)
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
