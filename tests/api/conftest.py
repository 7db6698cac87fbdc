"""One stack for all tests; those that change how the API is run start another API before the same server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwen3_vl_client.api import Settings
from qwen3_vl_client.api.engine_probe import EngineProbe
from qwen3_vl_client.connection import address
from qwen3_vl_client.options import Timeouts
from tests.api.stack import api_settings, media_folder, real_server, running
from tests.support.serving import Server


@pytest.fixture(scope="session")
def media_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media_folder(tmp_path_factory.mktemp("api") / "media")


@pytest.fixture(scope="session")
def clip(media_root: Path) -> bytes:
    return (media_root / "clips" / "clip.mp4").read_bytes()


@pytest.fixture(scope="session")
def picture(media_root: Path) -> bytes:
    return (media_root / "clips" / "picture.png").read_bytes()


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory, media_root: Path) -> Iterator[Server]:
    with real_server(tmp_path_factory.mktemp("checkpoint"), media_root) as server:
        yield server


@pytest.fixture(scope="session")
def settings(triton: Server, media_root: Path) -> Settings:
    return api_settings(triton, media_root)


@pytest.fixture(scope="session")
def api(settings: Settings) -> Iterator[str]:
    """Its address; those who have `KEYS` may ask."""
    with running(settings) as url:
        yield url


@pytest.fixture
def sessions(triton: Server) -> Callable[[], int]:
    """How many sessions the engine has now."""

    async def ask() -> int:
        probe = EngineProbe(address(triton.grpc_url, None, None, Timeouts()))
        try:
            state = await probe.state()
        finally:
            await probe.close()
        return state.sessions + state.waiting

    return lambda: asyncio.run(ask())
