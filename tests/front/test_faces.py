"""API and page beside each other in one application: neither opens what the other keeps closed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from qwen3_vl_client.front.app import create_app
from qwen3_vl_client.front.cookies import is_page
from qwen3_vl_client.front.page.routes import router
from qwen3_vl_client.front.settings import Settings
from tests.support.front import KEYS, NOWHERE, running

ANN = {"authorization": "Bearer key-of-ann"}
PAGE = "https://page.example"


@pytest.fixture
def keyed(tmp_path: Path) -> Settings:
    return Settings(media_root=tmp_path, url=NOWHERE, api_keys=KEYS, cors_origins=(PAGE,))


@pytest.fixture
def both(keyed: Settings) -> Iterator[str]:
    with running(replace(keyed, page=True)) as url:
        yield url


def test_without_keys_one_port_serves_both(page: str) -> None:
    assert httpx2.get(f"{page}/v1/models").json()["object"] == "list"
    assert httpx2.get(page).headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/static/app.js"), ("GET", "/files"), ("POST", "/files?name=a.mp4"), ("POST", "/ask")],
)
def test_beside_keys_there_is_no_page_unless_it_is_asked_for(keyed: Settings, method: str, path: str) -> None:
    with running(keyed) as url:
        for headers in ({}, ANN):
            response = httpx2.request(method, f"{url}{path}", headers=headers)
            assert response.status_code == 404
            assert "set-cookie" not in response.headers


def test_the_page_alone_has_nothing_of_the_api(tmp_path: Path) -> None:
    with running(Settings(media_root=tmp_path, url=NOWHERE, api=False)) as url:
        assert httpx2.get(url).status_code == 200
        for path in ("/v1/models", "/v1/files", "/openapi.json", "/health", "/metrics"):
            assert httpx2.get(f"{url}{path}").status_code == 404
    with pytest.raises(ValueError, match="neither the API nor the page"):
        Settings(media_root=tmp_path, api=False, page=False)


def test_a_cookie_opens_nothing_at_the_api_and_a_key_nothing_on_the_page(both: str) -> None:
    with httpx2.Client(base_url=both) as user:
        file = user.post("/files", params={"name": "a.mp4"}, content=b"a video").json()["id"]
        assert user.get("/files").json()
        assert user.get("/v1/files").status_code == 401
        assert user.get("/v1/files", headers=ANN).json()["data"] == []
        assert user.get(f"/v1/files/{file}", headers=ANN).status_code == 404
    anns = httpx2.post(f"{both}/v1/files", files={"file": ("a.mp4", b"a video")}, headers=ANN).json()["id"]
    assert httpx2.get(f"{both}/files", headers=ANN).json() == []
    assert httpx2.get(f"{both}/files/{anns}/content", headers=ANN).status_code == 404


def test_pages_that_may_call_the_api_do_not_call_the_page(both: str) -> None:
    foreign = {"origin": PAGE, "sec-fetch-site": "cross-site"}
    assert httpx2.delete(f"{both}/v1/files/file-1", headers={**ANN, **foreign}).status_code == 404
    for path in ("/files?name=a.mp4", "/ask", "/summarize"):
        response = httpx2.post(f"{both}{path}", headers=foreign, content=b"x")
        assert (response.status_code, response.json()["error"]["code"]) == (403, "foreign_origin")
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    for path, allowed in (("/v1/files", True), ("/files", False), ("/ask", False)):
        told = httpx2.options(f"{both}{path}", headers={**foreign, **asks})
        assert ("access-control-allow-origin" in told.headers) == allowed


def test_only_the_page_has_cookies_and_may_be_shown(page: str) -> None:
    for path, of_page in (
        ("/", True),
        ("/files", True),
        ("/v1/models", False),
        ("/health", False),
        ("/nothing", False),
    ):
        headers = httpx2.get(f"{page}{path}").headers
        assert ("set-cookie" in headers) == of_page
        assert headers["content-security-policy"].startswith("default-src 'self'" if of_page else "default-src 'none'")


def test_the_paths_of_the_page_are_known(page_settings: Settings) -> None:
    assert all(is_page(route.path) for route in router.routes)
    assert is_page("/static/app.js")
    described = create_app(page_settings).openapi()["paths"]
    assert described
    assert not any(is_page(path) for path in described)
    assert not any(map(is_page, ("/v1", "/v1/files", "/filesystem", "/askance", "//files", "/health", "")))
