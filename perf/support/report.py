"""How every benchmark here reports: a table, the figures against their bars, and JSON with the circumstances.

A speed claim is a ratio of two things measured side by side in one run. `finish` exits with status 1 where a bar does
not hold.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from build.gpu.manifest import installed_versions

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = ("torch", "transformers", "onnxruntime", "av", "numpy", "tritonclient")


@dataclass(frozen=True)
class Figure:
    """One figure with its bar. `at_least` and `at_most` are in `unit`; exactly one of them is given."""

    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"figure {self.name!r} needs exactly one of at_least and at_most")

    @property
    def holds(self) -> bool:
        if self.at_least is not None:
            return self.value >= self.at_least
        return self.at_most is not None and self.value <= self.at_most

    @property
    def bar(self) -> str:
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


def machine() -> dict[str, Any]:
    """The processor, cores, memory and, where PyTorch sees one, the GPU."""
    import torch

    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory_kib = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "processor": model or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_kib / 2**20, 1),
        "system": platform.platform(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **installed_versions(PACKAGES)}


def finish(
    name: str,
    *,
    workload: Mapping[str, Any],
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    figures: Sequence[Figure],
    series: Mapping[str, Any] | None = None,
    folder: Path = RESULTS,
) -> NoReturn:
    """Prints the table and the figures, writes `folder/NAME.json`, and exits: 0 where every bar holds, else 1.

    `series` is what charts are drawn from.
    """
    console = Console(width=120)
    table = Table(*columns, title=name)
    for row in rows:
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(table)
    bars = Table("figure", "value", "bar", "holds")
    for figure in figures:
        bars.add_row(figure.name, f"{figure.value:.3g} {figure.unit}", figure.bar, "yes" if figure.holds else "NO")
    console.print(bars)

    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "benchmark": name,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "workload": dict(workload),
        "table": [dict(zip(columns, row, strict=True)) for row in rows],
        "figures": [{**asdict(figure), "holds": figure.holds} for figure in figures],
        **({"series": dict(series)} if series else {}),
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    console.print(f"written to {path}")
    sys.exit(0 if all(figure.holds for figure in figures) else 1)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
