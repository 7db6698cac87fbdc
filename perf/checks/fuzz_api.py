"""Holds the API against its own OpenAPI description, on a real server with a small random checkpoint: `make fuzz-api`.

Schemathesis makes requests that follow the description and requests that do not. No answer may be a 5xx or one that the
description does not have; what breaks the description must be refused.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.front import KEYS, api_settings, media_folder, real_server, running

# As the description cannot say which media there are, requests that follow it may be refused.
_EXCLUDED_CHECKS = "positive_data_acceptance"
# A list of more elements than are accepted may be more bytes than are read, which is 413.
_CONFIGURATION = """[checks]
negative_data_rejection.expected-statuses = ["4xx"]
"""


def hold_against_description(
    url: str, key: str, cases: int, seed: int, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Sends at most `cases` random requests per operation, and those at the edges of the description.

    Schemathesis keeps its notes in `folder`; its exit status is 0 when all answers were right.
    """
    configuration = folder / "schemathesis.toml"
    configuration.write_text(_CONFIGURATION)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration), "run", f"{url}/openapi.json"),
        *("--header", f"Authorization: Bearer {key}"),
        *("--exclude-checks", _EXCLUDED_CHECKS, "--warnings", "off"),
        *("--max-examples", str(cases), "--seed", str(seed), "--continue-on-failure"),
    ]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "perf.checks.fuzz_hooks",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz-api", description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="random requests per operation")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qwen3-vl-fuzz-") as name:
        folder = Path(name)
        media_root = media_folder(folder / "media")
        with real_server(folder / "checkpoint", media_root) as triton, running(api_settings(triton, media_root)) as url:
            done = hold_against_description(url, KEYS["ann"], arguments.cases, arguments.seed, folder)
    print(done.stdout)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
