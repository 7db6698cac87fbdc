"""`make load`: the short version of every run, one after the other, and the page about them."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from perf.load.traffic.target import CACHE

SHORT = {
    "sweep": ("--requests", "9", "--concurrency", "1", "2", "4", "8"),
    "users": ("--users", "6", "--spawn-rate", "2", "--seconds", "20", "--steady-seconds", "15"),
    "batching": ("--tokens", "48", "--rounds", "1", "--concurrency", "1", "8"),
    "soak": ("--requests", "3500"),
    "overload": ("--seconds", "10"),
    "chaos": ("--kills", "1", "--calm-seconds", "2"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make load", description=__doc__)
    parser.add_argument("--model", help="a checkpoint: folder or hub name (default: a small random one)")
    parser.add_argument("--results", type=Path, default=CACHE / "results", help="where JSON and the page go")
    arguments = parser.parse_args()
    common = ["--results", str(arguments.results), *(["--model", str(arguments.model)] if arguments.model else [])]
    started = time.monotonic()
    # A bar that a short run misses is reported, and does not keep the others from running.
    missed = [name for name, options in SHORT.items() if _run(name, [*common, *options])]
    page = arguments.results / "report.html"
    failed = _run("page", ["--results", str(arguments.results), "--output", str(page)])
    print(f"all runs took {(time.monotonic() - started) / 60:.1f} minutes")
    if missed:
        print(f"missed bars or failed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed or failed else 0


def _run(module: str, options: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", f"perf.load.{module}", *options], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
