"""Every response says what a browser may do with it, those of errors too; none loads anything from elsewhere."""

from __future__ import annotations

import httpx2
import pytest

from qwen3_vl_client.front.app import create_app
from qwen3_vl_client.front.settings import Settings
from tests.support.front import served

ANN = {"authorization": "Bearer key-of-ann"}


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/nothing", "/openapi.json", "/metrics", "/health", "/v1/files?limit=x", "/nothing"]
)
def test_the_api_gives_nothing_to_a_browser(api: str, path: str) -> None:
    headers = httpx2.get(f"{api}{path}", headers=ANN).headers
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_errors_that_nobody_expected_do_too(settings: Settings) -> None:
    app = create_app(settings)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("a secret")

    with served(app) as url:
        response = httpx2.get(f"{url}/broken")
    assert response.status_code == 500
    assert "a secret" not in response.text
    assert response.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/files", "/files/nothing/content"])
def test_the_page_loads_its_own_only(page: str, path: str) -> None:
    headers = httpx2.get(f"{page}{path}").headers
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect"])
def test_there_are_no_pages_with_foreign_scripts(api: str, path: str) -> None:
    assert httpx2.get(f"{api}{path}").status_code == 404
