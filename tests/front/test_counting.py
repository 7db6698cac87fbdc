"""Every request of an owner is counted: whoever floods one route is refused there, and others are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from qwen3_vl_client.front import owners
from qwen3_vl_client.front.app import create_app
from qwen3_vl_client.front.settings import Settings
from tests.support.front import NOWHERE, served

FILE = "/file-" + "0" * 32


@pytest.fixture
def api_app(tmp_path: Path) -> FastAPI:
    keys = {"ann": "key-of-ann", "bob": "key-of-bob"}
    return create_app(Settings(media_root=tmp_path, url=NOWHERE, api_keys=keys, requests_per_minute=3))


@pytest.fixture
def page_app(tmp_path: Path) -> FastAPI:
    return create_app(Settings(media_root=tmp_path, url=NOWHERE, page_requests_per_minute=3, views_per_minute=5))


@pytest.fixture
def api(api_app: FastAPI) -> Iterator[httpx2.Client]:
    with served(api_app) as url, httpx2.Client(base_url=url) as http:
        yield http


@pytest.fixture
def page(page_app: FastAPI) -> Iterator[str]:
    with served(page_app) as url:
        yield url


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "", 200),
        ("GET", FILE, 404),
        ("GET", f"{FILE}/content", 404),
        ("DELETE", FILE, 404),
    ],
    ids=["list", "one", "content", "delete"],
)
def test_whoever_floods_the_files_of_the_api_is_refused(
    api: httpx2.Client, method: str, path: str, status: int
) -> None:
    def ask(owner: str) -> httpx2.Response:
        return api.request(method, f"/v1/files{path}", headers={"authorization": f"Bearer key-of-{owner}"})

    assert [ask("ann").status_code for _ in range(4)] == [status] * 3 + [429]
    assert ask("ann").headers["retry-after"]
    assert ask("bob").status_code == status


@pytest.mark.parametrize(
    ("method", "path", "status", "count"),
    [
        ("GET", "", 200, 3),
        ("GET", f"{FILE}/look", 404, 3),
        ("DELETE", FILE, 404, 3),
        ("GET", f"{FILE}/content", 404, 5),
        ("GET", f"{FILE}/picture?at=1", 404, 5),
    ],
    ids=["list", "look", "delete", "content", "picture"],
)
def test_whoever_floods_the_files_of_the_page_is_refused(
    page: str, method: str, path: str, status: int, count: int
) -> None:
    with httpx2.Client(base_url=page) as eve, httpx2.Client(base_url=page) as ann:
        statuses = [eve.request(method, f"/files{path}").status_code for _ in range(count + 1)]
        assert statuses == [status] * count + [429]
        refused = eve.request(method, f"/files{path}")
        assert refused.json()["error"]["message"].startswith(f"more than {count} ")
        assert refused.headers["retry-after"]
        assert ann.request(method, f"/files{path}").status_code == status


def test_a_player_takes_no_question_away(page: str) -> None:
    with httpx2.Client(base_url=page) as ann:
        while ann.get(f"/files{FILE}/content").status_code != 429:
            pass
        assert ann.get("/files").status_code == 200


def test_no_route_of_an_owner_is_left_out(page_app: FastAPI) -> None:
    owned = [(route.path, asked(route)) for route in routes(page_app) if owners._owner in asked(route)]
    # Names of models are read from nowhere: to refuse one takes as long.
    free = {"/v1/models", "/v1/models/{model:path}"}
    assert {path for path, calls in owned if not {owners._counted, owners._viewer} & calls} == free
    # What is nobody's: the page itself, and what operators ask.
    assert {route.path for route in routes(page_app)} - {path for path, _ in owned} == {"/", "/health", "/metrics"}


def routes(app: FastAPI) -> list[APIRoute]:
    """Its own, and those of its routers."""
    routers = [included.original_router for included in app.routes if hasattr(included, "original_router")]
    return [route for router in (app, *routers) for route in router.routes if isinstance(route, APIRoute)]


def asked(route: APIRoute) -> set[object]:
    """Which dependencies a route has, and these in turn."""
    left, found = [route.dependant], set[object]()
    while left:
        dependant = left.pop()
        found.add(dependant.call)
        left += dependant.dependencies
    return found
