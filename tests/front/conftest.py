"""The API and the page without a server behind them: what is refused at the door never gets that far."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qwen3_vl_client.api import Settings, create_app
from qwen3_vl_client.web.app import create_app as create_page
from qwen3_vl_client.web.settings import Settings as PageSettings
from tests.front.stack import served

NOWHERE = "127.0.0.1:9"


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Keys for two."""
    return Settings(
        media_root=tmp_path_factory.mktemp("api"),
        url=NOWHERE,
        api_keys={"ann": "key-of-ann", "bob": "key-of-bob"},
        cors_origins=("https://page.example",),
        requests_per_minute=1_000_000,
    )


@pytest.fixture(scope="session")
def api(settings: Settings) -> Iterator[str]:
    with served(create_app(settings)) as url:
        yield url


@pytest.fixture(scope="session")
def page_settings(tmp_path_factory: pytest.TempPathFactory) -> PageSettings:
    return PageSettings(
        media_root=tmp_path_factory.mktemp("page"),
        url=NOWHERE,
        requests_per_minute=1_000_000,
        new_users_per_minute=1_000_000,
    )


@pytest.fixture(scope="session")
def page(page_settings: PageSettings) -> Iterator[str]:
    with served(create_page(page_settings)) as url:
        yield url
