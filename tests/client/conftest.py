from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen3_vl_client import Client, Timeouts
from tests.client.scripted import ScriptedServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    running = ScriptedServer(tmp_path_factory.mktemp("server"))
    yield running
    running.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ScriptedServer]:
    """A server that a test may kill."""
    running = ScriptedServer(tmp_path)
    yield running
    running.kill()


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[Client]:
    with Client(server.url, timeouts=Timeouts(silence=20, total=30)) as client:
        yield client


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A file to upload; the scripted server does not look into it."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\x00\x01\x02\x03\x04")
    return path
