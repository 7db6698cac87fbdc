"""The page before a real server on a small random checkpoint, and a real Chromium before the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from build.assemble.checkpoint_factory import SHAPES, make_checkpoint
from qwen3_vl_client.front.app import create_app
from qwen3_vl_client.front.settings import Settings
from tests.support.front import served
from tests.support.media import make_image, make_video
from tests.support.serving import Server

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def media_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, media_root: Path) -> Iterator[Server]:
    checkpoint = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(checkpoint, seed=1, shape=SHAPES["small"])
    # Of two tokens that end an answer, the one that its random weights like less: answers are as long as allowed.
    generation = json.loads((checkpoint / "generation_config.json").read_text())
    generation["eos_token_id"] = generation["eos_token_id"][-1:]
    (checkpoint / "generation_config.json").write_text(json.dumps(generation))
    settings = {
        "video_preprocess.media_root": str(media_root),
        "decoder.kv_cache_tokens": "32768",
        "decoder.threads": "1",
        "vision_encoder.threads": "1",
    }
    with Server(checkpoint, settings) as running:
        yield running


@pytest.fixture(scope="session")
def page_url(server: Server, media_root: Path) -> Iterator[str]:
    settings = Settings(
        media_root=media_root, url=server.grpc_url, page_requests_per_minute=10_000, new_users_per_minute=10_000
    )
    with served(create_app(settings)) as url:
        yield url


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What users drop."""
    files = tmp_path_factory.mktemp("files")
    make_video(files / "clip.mp4", width=128, height=96, frames=80, fps=10, seed=3)
    make_video(files / "clip.avi", width=128, height=96, frames=20, fps=10, codec="mpeg4", seed=3)
    (files / "photo.png").write_bytes(make_image(seed=5))
    (files / "broken.mp4").write_bytes(b"this is no video" * 100)
    (files / "clip.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello.\n")
    return files


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """As long as its own tests: while it is open, Playwright's event loop runs in the thread that tests run in."""
    with sync_playwright() as playwright:
        installed = next(filter(None, map(shutil.which, BROWSERS)), None)
        try:
            # Containers have no user namespaces for its sandbox.
            started = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"Chromium is missing: apt install chromium: {error}")
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, page_url: str) -> Iterator[Page]:
    """A user of their own."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US")
    context.set_default_timeout(30_000)
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(page_url)
    yield opened
    context.close()
    assert errors == []
