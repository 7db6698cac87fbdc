"""A stage's process dies while it holds the locks of the memory that it shares with Triton."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from build.serve.server.triton import STAGES
from build.serve.supervisor.supervisor import SERVER
from tests.support import wire
from tests.support.serving import Server

DYING = Path(__file__).parent / "dying_stage.py"


@pytest.fixture(scope="module")
def server(toy_stages):
    def assemble(checkpoint: Path, destination: Path, settings: Mapping[str, str]) -> None:
        toy_stages(checkpoint, destination, settings)
        for stage in STAGES:
            model = destination / stage / "1" / "model.py"
            model.rename(model.with_name("toy_stage.py"))
            shutil.copy(DYING, model)

    with Server(Path(), assemble=assemble) as running:
        yield running


def ask(server: Server, **request: float) -> wire.Answer:
    return wire.ask(server.grpc_url, wire.question("hi", sampling={"max_tokens": 1}), **request)


@pytest.mark.parametrize("stage", STAGES)
def test_the_server_outlives_it(server, stage):
    before, heals = server.pids(), server.heals()
    (server.repository / stage / "1" / "die").touch()
    with contextlib.suppress(wire.RequestError, wire.SilenceError):
        ask(server, silence_seconds=5)
    server.wait_ready(60)
    assert ask(server).finish_reason == "length"
    assert server.heals() == {**heals, stage: heals[stage] + 1}, server.reports
    assert server.pids()[SERVER] == before[SERVER]
    assert server.pids()[stage] != before[stage]
