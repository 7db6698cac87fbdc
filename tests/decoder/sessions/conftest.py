"""Sessions that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.protocol import Engine
from engines.pytorch.factory import create_engine
from engines.settings import Settings
from sessions.inbox import EngineSpoke, Inbox
from tests.decoder.sessions.stages import ScriptedEngine, Stage3
from tests.support.harness import make_settings


@pytest.fixture
def stage_3(checkpoint: Path, tmp_path: Path) -> Iterator[Callable[..., Stage3]]:
    """Starts stages that end with the test, with the real engine or (scripted=True) one that the test plays."""
    started: list[Stage3] = []

    def start(*, scripted: bool = False, **changes: Any) -> Stage3:
        settings = make_settings(checkpoint, credits_directory=tmp_path, **changes)

        def make_engine(settings: Settings, inbox: Inbox) -> Engine:
            if scripted:
                return ScriptedEngine()
            return create_engine(settings, lambda session, event: inbox.put(EngineSpoke(session, event)))

        started.append(Stage3(checkpoint, settings, make_engine))
        return started[-1]

    yield start
    for stage in started:
        stage.sessions.close()
        stage.engine.close()
