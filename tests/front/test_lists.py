"""Lists of very many files: nobody waits for somebody else's."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import httpx2
from front.stack import served
from qwen3_vl_client.api import Settings, create_app

NOWHERE = "127.0.0.1:9"
COUNT = 300_000


def fill(index: Path) -> None:
    now = time.time()
    rows = (
        (f"file-{number:032x}", "anonymous", f"{number}.mp4", "vision" if number % 3 else "user_data", f"{number:064x}")
        for number in range(COUNT)
    )
    with sqlite3.connect(index) as connection:
        connection.executemany(
            f"INSERT INTO files VALUES (?, ?, ?, ?, ?, 1, {now}, {now + 86_400})",
            rows,
        )
    connection.close()


def test_eight_lists_of_very_many_files_at_once_stop_nobody(tmp_path: Path) -> None:
    app = create_app(Settings(media_root=tmp_path, url=NOWHERE))
    fill(tmp_path / "uploads" / "index.sqlite")

    async def main(url: str) -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=120) as http:
            lists = [asyncio.create_task(http.get("/v1/files", params={"purpose": "vision"})) for _ in range(8)]
            # Others are answered meanwhile: many times, where one list alone stopped all for seconds.
            answered = 0
            while not all(task.done() for task in lists):
                assert (await http.get("/v1/models")).status_code == 200
                answered += 1
            assert answered >= 8
            for listed in await asyncio.gather(*lists):
                page = listed.json()
                assert (len(page["data"]), page["has_more"]) == (10_000, True)

    with served(app) as url:
        asyncio.run(main(url))


def test_pages_of_very_many_files_are_complete(tmp_path: Path) -> None:
    app = create_app(Settings(media_root=tmp_path, url=NOWHERE))
    fill(tmp_path / "uploads" / "index.sqlite")
    seen: list[str] = []
    with served(app) as url, httpx2.Client(base_url=url, timeout=120) as http:
        page = {"has_more": True, "last_id": None}
        while page["has_more"]:
            asked = {"purpose": "user_data", "order": "asc", **({"after": page["last_id"]} if seen else {})}
            page = http.get("/v1/files", params=asked).json()
            seen += [file["id"] for file in page["data"]]
        unknown = http.get("/v1/files", params={"after": "file-" + "f" * 32})
    assert seen == [f"file-{number:032x}" for number in range(0, COUNT, 3)]
    assert unknown.status_code == 400
    assert "the id of one of your files" in unknown.json()["error"]["message"]
