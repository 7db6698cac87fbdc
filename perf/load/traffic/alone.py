"""A server in which each stage can be asked alone, between doubles of its neighbours."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from build.serve.deployment import credits_settings
from build.serve.server import triton
from build.serve.server.access import Access
from build.serve.server.api import Api
from build.serve.server.process import TritonProcess
from perf.load.traffic.scenarios import DOUBLES, add_doubles
from perf.load.traffic.target import Target, assemble, served
from tests.support.serving import CACHE

START_SECONDS = 120.0


@contextmanager
def stages_alone(model: str | None, settings: Mapping[str, str]) -> Iterator[tuple[Target, Path]]:
    """The server and its repository. Nobody watches it: Triton has to know all its models from the start, and to load
    an ensemble later loads its stages again, which a supervisor would take for their death.

    Raises TimeoutError with the server's log when it does not start.
    """
    checkpoint, settings = served(model, settings)
    with tempfile.TemporaryDirectory(prefix="stages-alone-") as folder:
        repository, credits, log = (Path(folder) / name for name in ("repository", "credits", "triton.log"))
        credits.mkdir()
        assemble(checkpoint, repository, {**settings, **credits_settings(credits)})
        add_doubles(repository, credits)
        installation = triton.find(CACHE)
        endpoints = triton.Endpoints("127.0.0.1", *triton.free_ports("127.0.0.1", 4))
        arguments = [
            *triton.command(installation, repository, endpoints),
            *(f"--load-model={name}" for name in DOUBLES),
        ]
        access = Access.draw(gated=False)
        hidden = access.options()
        process = TritonProcess([*arguments, *hidden], installation.environment(), log, hidden)
        try:
            api = Api(endpoints.url(endpoints.http), access.headers())
            deadline = time.monotonic() + START_SECONDS
            while not api.is_loaded(timeout_seconds=1):
                if time.monotonic() > deadline or process.exit_status() is not None:
                    raise TimeoutError(f"the stages were not loaded within {START_SECONDS:g} s:\n{log.read_text()}")
                time.sleep(0.1)
            yield Target(endpoints.grpc_target, *map(endpoints.url, (endpoints.http, endpoints.metrics))), repository
        finally:
            process.stop()
