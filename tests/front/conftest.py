"""The application without a server behind it, for requests that get no further than the door; and a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwen3_vl_client.connection import address
from qwen3_vl_client.engine_probe import EngineProbe
from qwen3_vl_client.front.settings import Settings
from qwen3_vl_client.options import Timeouts
from tests.support.front import KEYS, NOWHERE, media_folder, real_server, running
from tests.support.serving import Server


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Keys for two."""
    return Settings(
        media_root=tmp_path_factory.mktemp("api"),
        url=NOWHERE,
        api_keys=KEYS,
        cors_origins=("https://page.example",),
        requests_per_minute=1_000_000,
    )


@pytest.fixture(scope="session")
def api(settings: Settings) -> Iterator[str]:
    with running(settings) as url:
        yield url


@pytest.fixture(scope="session")
def page_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """No keys."""
    return Settings(
        media_root=tmp_path_factory.mktemp("page"),
        url=NOWHERE,
        page_requests_per_minute=1_000_000,
        new_users_per_minute=1_000_000,
    )


@pytest.fixture(scope="session")
def page(page_settings: Settings) -> Iterator[str]:
    with running(page_settings) as url:
        yield url


@pytest.fixture(scope="session")
def media_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media_folder(tmp_path_factory.mktemp("media") / "root")


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory, media_root: Path) -> Iterator[Server]:
    with real_server(tmp_path_factory.mktemp("checkpoint"), media_root) as server:
        yield server


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
