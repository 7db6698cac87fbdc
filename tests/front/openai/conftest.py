"""One stack for all tests; those that change how the API is run start another one before the same server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen3_vl_client.front.settings import Settings
from tests.support.front import api_settings, running
from tests.support.serving import Server


@pytest.fixture(scope="session")
def clip(media_root: Path) -> bytes:
    return (media_root / "clips" / "clip.mp4").read_bytes()


@pytest.fixture(scope="session")
def picture(media_root: Path) -> bytes:
    return (media_root / "clips" / "picture.png").read_bytes()


@pytest.fixture(scope="session")
def settings(triton: Server, media_root: Path) -> Settings:
    return api_settings(triton, media_root)


@pytest.fixture(scope="session")
def api(settings: Settings) -> Iterator[str]:
    """Its address; those who have `KEYS` may ask."""
    with running(settings) as url:
        yield url
