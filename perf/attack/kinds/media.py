"""The API and the page: files that cost time or memory, and lists of very many files."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from perf.attack import wire
from perf.attack.expect import NotRunError, expect
from perf.attack.field import Field
from perf.attack.honest import question
from perf.attack.kinds import hostile_media
from perf.attack.kinds.requests import cookie
from perf.attack.stack import CLIP
from perf.attack.table import attack
from tests.support.media import make_image, make_video

CONTEXT = 4096
COSTLY_SECONDS = 20.0
"""By then a file that costs too much is refused, or answered."""
PICTURES_MIB = 1024.0
"""Two pictures of 8192² and what is made of them; not thirty-two."""
LISTED = 300_000
LISTS = 8
PICTURE_SECONDS = 8.0
PICTURES = 8
WATCHED_SECONDS = 15.0


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _video(url: str, subtitles: str | None = None) -> dict[str, object]:
    return {"type": "video_url", "video_url": {"url": url, **({"subtitles": subtitles} if subtitles else {})}}


def _ask(field: Field, *parts: dict[str, object]) -> tuple[wire.Answer, float]:
    """With a short context: it is files that cost here, not prompts."""
    started = time.monotonic()
    body = {**question(field.stack.model, "What is shown?", *parts), "video_options": {"context_length": CONTEXT}}
    answer = wire.send_json(
        field.api, "/v1/chat/completions", body, wire.bearer(field.stack.key_b), timeout_seconds=3 * COSTLY_SECONDS
    )
    return answer, time.monotonic() - started


def _ended(answer: wire.Answer, seconds: float) -> str:
    """Tells how, and raises GotThroughError where it took too long or the server failed."""
    expect(answer.status == 200 or answer.refused, f"failed: {answer}")
    told = f"{'answered' if answer.status == 200 else answer} after {seconds:.1f} s"
    expect(seconds <= COSTLY_SECONDS, told)
    return told


@attack("API", "subtitles in a sparse file of 1.9 GB", expects="refused before it is read", needs=("api", "own"))
def sparse_subtitles(field: Field) -> str:
    assert field.stack.own is not None
    path = field.stack.own.media_root / "sparse.srt"
    hostile_media.sparse_file(path)
    try:
        with field.others("API") as seen:
            answer, seconds = _ask(field, _video(CLIP, "sparse.srt"))
        expect(answer.status != 200, "it was taken for subtitles")
        return f"{_ended(answer, seconds)}; {seen}"
    finally:
        path.unlink()


@attack("API", "a video that is a sparse file of 1.9 GB", expects="refused in time", needs=("api", "own"))
def sparse_video(field: Field) -> str:
    assert field.stack.own is not None
    path = field.stack.own.media_root / "sparse.mp4"
    hostile_media.sparse_file(path)
    try:
        with field.others("API") as seen:
            answer, seconds = _ask(field, _video("sparse.mp4"))
        return f"{_ended(answer, seconds)}; {seen}"
    finally:
        path.unlink()


@attack("API", "a picture of 8192², 16 times, in two requests", expects="refused or answered in time", needs=("api",))
def large_pictures(field: Field) -> str:
    url = _data("image/png", hostile_media.large_picture())
    part: dict[str, object] = {"type": "image_url", "image_url": {"url": url}}
    with field.others("API", mib=PICTURES_MIB) as seen, ThreadPoolExecutor(2) as pool:
        ended = [one.result() for one in [pool.submit(_ask, field, *[part] * 16) for _ in range(2)]]
    return f"{'; '.join({_ended(answer, seconds) for answer, seconds in ended})}; {seen}"


@attack("API", "an MP4 with a million edits", expects="refused or answered in time", needs=("api",))
def many_edits(field: Field) -> str:
    path = field.folder / "edits.mp4"
    hostile_media.many_edits(path)
    with field.others("API") as seen:
        answer, seconds = _ask(field, _video(_data("video/mp4", path.read_bytes())))
    return f"{_ended(answer, seconds)}; {seen}"


@attack("API", "subtitles of 150,000 lines", expects="refused or answered in time; others too", needs=("api",))
def many_lines(field: Field) -> str:
    longest = [0.0]
    stopping = threading.Event()

    def ask_others() -> None:
        while not stopping.wait(0.1):
            started = time.monotonic()
            field.chat("Hello")
            longest[0] = max(longest[0], time.monotonic() - started)

    path = field.folder / "lines.mp4"
    make_video(path, width=96, height=64, frames=20, fps=10, seed=11)
    video, lines = _data("video/mp4", path.read_bytes()), _data("text/plain", hostile_media.many_lines())
    asking = threading.Thread(target=ask_others)
    with field.others("API") as seen:
        asking.start()
        answer, seconds = _ask(field, _video(video, lines))
        stopping.set()
        asking.join()
    expect(longest[0] <= 5, f"a short question took {longest[0]:.1f} s meanwhile")
    return f"{_ended(answer, seconds)}; a short question took {longest[0]:.1f} s; {seen}"


@attack("API", f"{LISTS} lists of {LISTED:,} files", expects="others are answered", needs=("api", "own"))
def long_lists(field: Field) -> str:
    assert field.stack.own is not None
    index = _index(field.stack.own.uploads)
    body, headers = wire.multipart("listed.png", make_image(seed=1))
    key = wire.bearer(field.stack.key_b)
    uploaded = wire.send(field.api, "POST", "/v1/files", body, {**headers, **key})
    expect(uploaded.status == 200, f"the upload was refused: {uploaded}")
    id = uploaded.json()["id"]
    prefix = f"file-{uuid.uuid4().hex[:20]}"
    with contextlib.closing(sqlite3.connect(index, timeout=20)) as files:
        _copy_rows(files, id, prefix)
    try:
        started = time.monotonic()
        with field.others("API") as seen, ThreadPoolExecutor(LISTS) as pool:
            answers = list(pool.map(lambda _: wire.send(field.api, "GET", "/v1/files", headers=key), range(LISTS)))
        seconds = time.monotonic() - started
    finally:
        with contextlib.closing(sqlite3.connect(index, timeout=20)) as files, files:
            files.execute("DELETE FROM files WHERE id LIKE ?", (f"{prefix}%",))
        wire.send(field.api, "DELETE", f"/v1/files/{id}", headers=key)
    expect(all(answer.status in (200, 429) for answer in answers), f"a list failed: {answers[0]}")
    return f"lists took {seconds:.1f} s; {seen}"


def _index(uploads: Path) -> Path:
    for path in sorted(uploads.iterdir()):
        if path.is_file() and path.read_bytes()[:15] == b"SQLite format 3":
            return path
    raise NotRunError(f"{uploads} has no index in SQLite")


def _copy_rows(files: sqlite3.Connection, id: str, prefix: str) -> None:
    """Rows like that of `id`, each with an id of its own."""
    columns = [row[1] for row in files.execute("PRAGMA table_info(files)")]
    copied = ", ".join("? || printf('%07x', number)" if name == "id" else name for name in columns)
    with files:
        files.execute(
            "WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < ?)"
            f" INSERT INTO files ({', '.join(columns)}) SELECT {copied} FROM files, numbers WHERE id = ?",
            (LISTED, prefix, id),
        )


@attack("page", "pictures of a video of one key frame", expects="other users have their pictures", needs=("page",))
def one_key_frame(field: Field) -> str:
    path = field.folder / "key.mp4"
    hostile_media.one_key_frame(path)
    small = field.folder / "small.mp4"
    make_video(small, width=96, height=64, frames=40, fps=10, seed=12)
    attacker, other = ({"Cookie": cookie(field)} for _ in range(2))
    costly = _upload(field, "costly.mp4", path.read_bytes(), attacker)
    cheap = _upload(field, "cheap.mp4", small.read_bytes(), other)
    with ThreadPoolExecutor(PICTURES) as pool:
        asked = [pool.submit(_picture, field, costly, 90 + number, attacker) for number in range(PICTURES)]
        time.sleep(2)
        started = time.monotonic()
        answers: list[wire.Answer] = []
        longest = 0.0
        while time.monotonic() < started + WATCHED_SECONDS and not all(one.done() for one in asked):
            began = time.monotonic()
            answers.append(_picture(field, cheap, len(answers) % 3, other))
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.5)
    failed = [answer for answer in answers if answer.status != 200]
    told = f"{len(answers)} pictures, the slowest after {longest:.1f} s"
    expect(not failed, f"{len(failed)} of {told}: {failed[:1]}")
    expect(longest <= PICTURE_SECONDS, told)
    return told


def _upload(field: Field, name: str, content: bytes, headers: dict[str, str]) -> str:
    answer = wire.send(field.page, "POST", f"/files?name={name}", content, headers)
    expect(answer.status == 200, f"the upload was refused: {answer}")
    return str(json.loads(answer.body)["id"])


def _picture(field: Field, id: str, second: float, headers: dict[str, str]) -> wire.Answer:
    try:
        return wire.send(field.page, "GET", f"/files/{id}/picture?at={second}", headers=headers)
    except TimeoutError:
        return wire.Answer(0, {}, b"not answered")
