"""Nothing that is sent back of an upload tells an owner that somebody else has the same."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import httpx2
import pytest

from qwen3_vl_client.front.app import create_app
from qwen3_vl_client.front.settings import Settings
from tests.support.front import NOWHERE, served

CONTENT = bytes(range(256)) * 40
EARLIER = 1_000_000_000


@pytest.fixture
def api(tmp_path: Path) -> Iterator[httpx2.Client]:
    keys = {"ann": "key-of-ann", "bob": "key-of-bob"}
    app = create_app(Settings(media_root=tmp_path, url=NOWHERE, api_keys=keys))
    with served(app) as url, httpx2.Client(base_url=url) as http:
        yield http


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    with served(create_app(Settings(media_root=tmp_path, url=NOWHERE))) as url:
        yield url


def upload(api: httpx2.Client, owner: str) -> dict[str, str]:
    """The file as the API describes it, and `path` of its content."""
    files = {"file": ("a.mp4", CONTENT)}
    answer = api.post("/v1/files", files=files, headers={"authorization": f"Bearer key-of-{owner}"})
    return {**answer.json(), "path": f"/v1/files/{answer.json()['id']}/content"}


def age(folder: Path) -> None:
    """What is there was uploaded years ago."""
    (content,) = (folder / "uploads" / "content").glob("??/*")
    os.utime(content, (EARLIER, EARLIER))


def test_who_uploads_what_another_has_sees_their_own_upload(api: httpx2.Client, tmp_path: Path) -> None:
    upload(api, "ann")
    age(tmp_path)
    bobs = upload(api, "bob")
    got = api.get(bobs["path"], headers={"authorization": "Bearer key-of-bob"})
    assert got.content == CONTENT
    assert got.headers["last-modified"] == formatdate(int(bobs["created_at"]), usegmt=True)
    assert got.headers["etag"] == f'"{bobs["id"]}"'
    assert got.headers["x-content-type-options"] == "nosniff"
    assert 'attachment; filename="a.mp4"' in got.headers["content-disposition"]


def test_nor_on_the_page(api: httpx2.Client, page: str, tmp_path: Path) -> None:
    upload(api, "ann")
    age(tmp_path)
    with httpx2.Client(base_url=page) as user:
        before = int(time.time())
        mine = user.post("/files", params={"name": "b.mp4"}, content=CONTENT).json()
        got = user.get(f"/files/{mine['id']}/content")
        assert got.content == CONTENT
        assert got.headers["etag"] == f'"{mine["id"]}"'
        assert got.headers["last-modified"] in {formatdate(before + late, usegmt=True) for late in range(60)}


@pytest.mark.parametrize("header", ["etag", "last-modified"])
def test_ranges_are_given_of_what_has_not_changed(api: httpx2.Client, tmp_path: Path, header: str) -> None:
    upload(api, "ann")
    age(tmp_path)
    path = upload(api, "bob")["path"]
    own = {"authorization": "Bearer key-of-bob", "range": "bytes=10-19"}
    known = api.get(path, headers=own)
    assert (known.status_code, known.content) == (206, CONTENT[10:20])
    again = api.get(path, headers={**own, "if-range": known.headers[header]})
    assert (again.status_code, again.content) == (206, CONTENT[10:20])
    changed = api.get(path, headers={**own, "if-range": formatdate(EARLIER, usegmt=True)})
    assert (changed.status_code, changed.content) == (200, CONTENT)
