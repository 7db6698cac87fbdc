"""Uploads as they arrive: in any order, cut anywhere, damaged; written while they arrive."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_vl_client import InvalidRequest
from qwen3_vl_client.front.media.multipart import FileForm

TYPE = "multipart/form-data; boundary=XX"
FILE = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\nContent-Type: video/mp4\r\n\r\n'
PURPOSE = b'--XX\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nvision\r\n'
END = b"--XX--\r\n"
# What looks like a boundary and is none.
CONTENT = b"\r\n--X\r\n--XY--\r\n\x00\xff" * 3


def read(*pieces: bytes, content_type: str = TYPE) -> tuple[FileForm, bytes]:
    async def main() -> tuple[FileForm, bytes]:
        async def body() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        form = FileForm(content_type, body())
        return form, b"".join([piece async for piece in form.pieces()])

    return asyncio.run(main())


@pytest.mark.parametrize(
    "body", [FILE + CONTENT + b"\r\n" + PURPOSE + END, PURPOSE + FILE + CONTENT + b"\r\n" + END], ids=["first", "last"]
)
@given(data=st.data())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_form_that_is_cut_anywhere(body: bytes, data: st.DataObject) -> None:
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8))), len(body)]
    form, content = read(*(body[start:end] for start, end in itertools.pairwise(cuts)))
    assert (form.filename, content, form.fields) == ("a.mp4", CONTENT, {"purpose": "vision"})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "before its last boundary"),
        (FILE + CONTENT, "before its last boundary"),
        (PURPOSE + END, "no part 'file'"),
        (PURPOSE.replace(b'"purpose"', b'"file"') + END, "has no file name"),
        (FILE + b"a\r\n" + FILE + b"b\r\n" + END, "more than one part 'file'"),
        (PURPOSE * 17 + END, "more than 16 parts"),
        (PURPOSE.replace(b"vision", b"x" * 5000) + END, "longer than 4096 bytes"),
        (PURPOSE.replace(b"vision", b"\xff") + END, "not UTF-8"),
        (b"no form", "cannot be read"),
        (FILE.replace(b"name", b"n\x00me") + b"a\r\n" + END, "cannot be read|no part"),
        (FILE.replace(b"\r\n\r\n", b"\r\nX-More: " + b"x" * 9000 + b"\r\n\r\n") + END, "cannot be read"),
        (FILE.replace(b"\r\n\r\n", b"\r\nX: y" * 20 + b"\r\n\r\n") + END, "cannot be read"),
        (FILE.replace(b"a.mp4", b"a\x1b[31m.mp4") + b"a\r\n" + END, "without control characters"),
        (FILE.replace(b"a.mp4", b"\xed\xa0\x80.mp4") + b"a\r\n" + END, "not UTF-8"),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        read(body)


def test_what_follows_the_form_is_not_read() -> None:
    async def main() -> None:
        async def body() -> AsyncIterator[bytes]:
            yield FILE + b"a\r\n" + END
            raise AssertionError("more is asked for")

        form = FileForm(TYPE, body())
        assert [piece async for piece in form.pieces()] == [b"a"]

    asyncio.run(main())


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/form-data", TYPE + "x" * 300])
def test_other_types_are_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest):
        read(FILE + b"a\r\n" + END, content_type=content_type)


@pytest.fixture
def http(api: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=api, headers={"authorization": "Bearer key-of-bob"}, timeout=60) as client:
        yield client


def post(http: httpx2.Client, content: bytes | Iterator[bytes]) -> httpx2.Response:
    return http.post("/v1/files", content=content, headers={"content-type": TYPE})


def test_a_file_is_written_while_it_arrives(http: httpx2.Client, media_root: Path) -> None:
    partial = media_root / "uploads" / "partial"
    block = bytes(2**20)
    seen: list[int] = []

    def body() -> Iterator[bytes]:
        yield FILE
        for _ in range(6):
            yield block
        done = threading.Event()
        for _ in range(200):
            # All but the block that is being filled is on the disk.
            if sum(path.stat().st_size for path in partial.iterdir()) >= 4 * len(block):
                break
            done.wait(0.02)
        seen.append(sum(path.stat().st_size for path in partial.iterdir()))
        yield b"\r\n" + END

    stored = post(http, body()).json()
    assert seen[0] >= 4 * len(block)
    assert stored["bytes"] == 6 * len(block)
    assert list(partial.iterdir()) == []
    assert http.delete(f"/v1/files/{stored['id']}").is_success


def test_what_is_too_large_is_refused_and_leaves_nothing(http: httpx2.Client, media_root: Path) -> None:
    response = post(http, FILE + bytes(9 * 2**20) + b"\r\n" + END)
    assert response.status_code == 413
    assert "at most 8,388,608" in response.json()["error"]["message"]
    assert list((media_root / "uploads" / "partial").iterdir()) == []
    assert http.get("/v1/files").json()["data"] == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"purpose": "mischief"}, "purpose is 'mischief'"),
        ({"expires_after[seconds]": "-1"}, "a whole number"),
        ({"expires_after[seconds]": "9", "expires_after[anchor]": "now"}, "'created_at' is accepted"),
    ],
)
def test_fields_are_checked(http: httpx2.Client, fields: dict[str, str], reason: str) -> None:
    response = http.post("/v1/files", files={"file": ("a.mp4", b"content")}, data=fields)
    assert response.status_code == 400
    assert reason in response.json()["error"]["message"]


def test_names_are_names(http: httpx2.Client) -> None:
    for name, kept in (("../../etc/passwd", "passwd"), ("x" * 300, "x" * 255), ("/", "unnamed")):
        stored = http.post("/v1/files", files={"file": (name, b"content")}).json()
        assert stored["filename"] == kept
        assert http.get(f"/v1/files/{stored['id']}/content").content == b"content"
        http.delete(f"/v1/files/{stored['id']}")


def test_content_comes_in_ranges_and_is_never_a_page(http: httpx2.Client) -> None:
    stored = http.post("/v1/files", files={"file": ("page.html", b"<script>alert(1)</script>")}).json()
    whole = http.get(f"/v1/files/{stored['id']}/content")
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["content-disposition"].startswith("attachment")
    part = http.get(f"/v1/files/{stored['id']}/content", headers={"range": "bytes=1-6"})
    assert (part.status_code, part.content) == (206, b"script")
    http.delete(f"/v1/files/{stored['id']}")


def test_lists_come_in_pages(http: httpx2.Client) -> None:
    ids = [http.post("/v1/files", files={"file": ("a", bytes([n]))}).json()["id"] for n in range(1, 4)]
    first = http.get("/v1/files", params={"order": "asc", "limit": 2}).json()
    rest = http.get("/v1/files", params={"order": "asc", "after": first["last_id"]}).json()
    assert [stored["id"] for stored in first["data"] + rest["data"]] == ids
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [stored["id"] for stored in http.get("/v1/files").json()["data"]] == ids[::-1]
    for each in ids:
        http.delete(f"/v1/files/{each}")
