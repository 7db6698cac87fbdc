"""A time that ran out at the server is told in the server's own words, with the status of one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from qwen3_vl_client.front.app import create_app
from qwen3_vl_client.front.settings import Settings
from tests.support.front import served

WORDS = "video[0] cannot be read: its decoder made no progress"


class Stalled(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Says of each request what stage 1 says of a video that it cannot read in time."""

    def ModelStreamInfer(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        for _ in requests:
            message = f"in ensemble 'qwen3_vl', deadline_exceeded: {WORDS}"
            yield service_pb2.ModelStreamInferResponse(error_message=message)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Stalled(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/summaries"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_api_tells_it(url: str, tmp_path: Path, path: str, stream: bool) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a video")
    video = {"type": "video_url", "video_url": {"url": "a.mp4"}}
    asked = {"messages": [{"role": "user", "content": [video]}]} if "chat" in path else {"video": "a.mp4"}
    with served(create_app(Settings(media_root=tmp_path, url=url))) as api:
        told = httpx2.post(f"{api}{path}", json={"model": "qwen3-vl", "stream": stream, **asked}, timeout=60)
    assert WORDS in told.text
    assert "deadline_exceeded" in told.text
    if not stream:
        assert (told.status_code, told.json()["error"]["type"]) == (504, "server_error")


def test_the_page_tells_it(url: str, tmp_path: Path) -> None:
    app = create_app(Settings(media_root=tmp_path, url=url))
    with served(app) as page, httpx2.Client(base_url=page, timeout=60) as user:
        file = user.post("/files", params={"name": "a.mp4"}, content=b"a video").json()["id"]
        question = {"turns": [{"role": "user", "text": "Hello"}], "files": [file]}
        look = user.get(f"/files/{file}/look")
        told = [look, user.post("/ask", json=question), user.post("/summarize", json={"file": file})]
    assert look.status_code == 504
    for answer in told:
        assert WORDS in answer.text
        assert "deadline_exceeded" in answer.text
