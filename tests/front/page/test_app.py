"""The page's server without a browser: uploads, owners, pictures, answers, errors, and clients that go away."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.support import wire
from tests.support.serving import Server


@pytest.fixture
def user(page_url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=page_url, timeout=60) as client:
        client.get("/")
        yield client


@pytest.fixture
def other(page_url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=page_url, timeout=60) as client:
        client.get("/")
        yield client


def upload(user: httpx2.Client, path: Path) -> dict[str, Any]:
    response = user.post("/files", params={"name": path.name}, content=path.read_bytes())
    assert response.status_code == 200, response.text
    return response.json()


def question(text: str, *files: str, **options: Any) -> dict[str, Any]:
    return {"files": files, "turns": [{"role": "user", "text": text}], "options": options, "video_seconds": 8}


def lines(response: httpx2.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.text.splitlines()]


def test_files_are_their_owners_alone(user: httpx2.Client, other: httpx2.Client, folder: Path) -> None:
    file = upload(user, folder / "clip.mp4")
    assert (file["name"], file["kind"]) == ("clip.mp4", "video")
    assert file in user.get("/files").json()
    assert other.get("/files").json() == []
    for path in ("content", "look", "picture?at=1"):
        assert other.get(f"/files/{file['id']}/{path}").status_code == 404
    assert other.delete(f"/files/{file['id']}").status_code == 404
    assert other.post("/ask", json=question("?", file["id"])).status_code == 404
    assert other.post("/summarize", json={"file": file["id"]}).status_code == 404
    assert user.delete(f"/files/{file['id']}").status_code == 204
    assert user.get(f"/files/{file['id']}/content").status_code == 404


def test_player_reads_ranges(user: httpx2.Client, folder: Path) -> None:
    file = upload(user, folder / "clip.mp4")
    response = user.get(f"/files/{file['id']}/content", headers={"range": "bytes=10-19"})
    assert (response.status_code, response.headers["content-type"]) == (206, "video/mp4")
    assert response.content == (folder / "clip.mp4").read_bytes()[10:20]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi"])
def test_look_and_pictures(user: httpx2.Client, folder: Path, name: str) -> None:
    file = upload(user, folder / name)
    look = user.get(f"/files/{file['id']}/look", params={"fps": 2, "sampler": "uniform"}).json()
    assert look["seconds"] == pytest.approx(8 if name == "clip.mp4" else 2)
    assert len(look["changes"]) == 512
    assert look["prompt_tokens"] == look["wanted_tokens"] > 0
    picture = user.get(f"/files/{file['id']}/picture", params={"at": look["timestamps"][-1]})
    assert picture.headers["content-type"] == "image/jpeg"
    assert Image.open(BytesIO(picture.content)).height == 96


def test_answer_comes_line_by_line(user: httpx2.Client, folder: Path) -> None:
    files = [upload(user, folder / name)["id"] for name in ("clip.mp4", "photo.png", "clip.srt")]
    told = lines(user.post("/ask", json=question("What?", *files, max_tokens=8, temperature=0)))
    assert {"progress", "text", "answer"} == {line["kind"] for line in told}
    answer = told[-1]
    assert (answer["kind"], answer["finish_reason"]) == ("answer", "length")
    assert answer["usage"]["completion_tokens"] == 8
    assert [medium["kind"] for medium in answer["usage"]["media"]] == ["video", "image"]
    follow_up = question("What?", *files, max_tokens=4)
    follow_up["turns"] += [{"role": "assistant", "text": "A dog."}, {"role": "user", "text": "Where?"}]
    assert lines(user.post("/ask", json=follow_up))[-1]["kind"] == "answer"


def test_what_cannot_be_answered_says_why(user: httpx2.Client, folder: Path) -> None:
    broken = upload(user, folder / "broken.mp4")["id"]
    (error,) = [line for line in lines(user.post("/ask", json=question("?", broken))) if line["kind"] == "error"]
    assert error["code"] == "invalid_argument"
    assert "not a readable video" in error["message"]
    assert user.get(f"/files/{broken}/look").json()["error"]["code"] == "invalid_argument"
    assert user.get(f"/files/{broken}/picture", params={"at": 0}).status_code == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"turns": []}, "turns: List should have at least 1 item"),
        ({"turns": [{"role": "user", "text": "?"}], "video": 1}, "video is not a field that is accepted here"),
        (question("?", temperature=-1), "options.temperature: Input should be greater than or equal to 0"),
    ],
)
def test_malformed_questions(user: httpx2.Client, body: dict[str, Any], message: str) -> None:
    response = user.post("/ask", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(message)


def test_other_files_are_refused_by_name(user: httpx2.Client) -> None:
    response = user.post("/files", params={"name": "virus.exe"}, content=b"MZ")
    assert response.status_code == 400
    assert "MP4" in response.json()["error"]["message"]


def test_who_goes_away_ends_the_request(user: httpx2.Client, server: Server) -> None:
    wire.wait_idle(server.grpc_url)
    endless = question("Tell me everything.", max_tokens=20_000, temperature=0)
    with user.stream("POST", "/ask", json=endless) as response:
        told = (json.loads(line) for line in response.iter_lines())
        first = next(line for line in told if line["kind"] != "progress")
        assert first["kind"] == "text", first
        assert wire.engine_state(server.grpc_url)["sessions"] == 1
    left = time.monotonic()
    wire.wait_idle(server.grpc_url, seconds=10)
    assert time.monotonic() - left < 5


def test_nothing_foreign_runs_in_the_page(user: httpx2.Client) -> None:
    response = user.get("/")
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"


def test_secret_is_for_the_server_only(page_url: str) -> None:
    cookie = httpx2.get(page_url).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "set-cookie" not in httpx2.get(page_url, headers={"cookie": cookie.split(";")[0]}).headers
