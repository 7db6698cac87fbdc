"""Whatever ends a request: it ends in bounded time with a reason, KV blocks come back, and the next one is answered."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support import wire
from tests.support.media import make_video
from tests.support.serving import Server

LONG = {"temperature": 0, "max_tokens": 6000, "ignore_eos": True}
SHORT = {"temperature": 0, "max_tokens": 4, "ignore_eos": True}


@pytest.fixture(scope="module")
def long_video(tmp_path_factory) -> bytes:
    """Enough frames that decoding, encoding and prefilling take seconds."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    make_video(path, width=640, height=480, frames=300, fps=10, seed=9)
    return path.read_bytes()


def in_prefill(long_video: bytes) -> list:
    return wire.question("What?", video=[long_video], sampling=LONG, options={"fps": 10, "max_frames": 300})


def test_client_goes_away_in_mid_prefill(server, unharmed, long_video):
    request = wire.Request(server.grpc_url, in_prefill(long_video), parameters={"progress": True})
    for result in request:
        if b'"prefill"' in (result.as_numpy("progress") or [b""])[0]:
            break
    request.close()
    wire.wait_idle(server.grpc_url, seconds=15)


def test_client_goes_away_in_mid_generation(server, unharmed):
    request = wire.Request(server.grpc_url, wire.question("Go on", sampling=LONG))
    next(iter(request))
    request.close()
    wire.wait_idle(server.grpc_url, seconds=15)


def test_client_is_killed_in_mid_generation(server, unharmed):
    script = (
        "import sys, wire\n"
        f"request = wire.Request({server.grpc_url!r}, wire.question('Go on', sampling={LONG!r}))\n"
        "for _ in request: print('a piece', flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(wire.__file__).parents[2])}
    client = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    client.stdout.readline()
    client.kill()
    client.wait()
    wire.wait_idle(server.grpc_url, seconds=15)


def test_stop_ends_a_request_with_what_it_has_said(server, unharmed):
    request = wire.Request(server.grpc_url, wire.question("Go on", sampling=LONG))
    responses = iter(request)
    next(responses)
    assert wire.stop(server.grpc_url, request.id) == "cancelled"
    reasons = [result.as_numpy("finish_reason")[0] for result in responses]
    request.close()
    assert reasons[-1] == b"cancelled"
    assert wire.stop(server.grpc_url, request.id) == ""


def test_stage_1_fails_in_mid_video(server, unharmed, long_video):
    """The index of an MP4 written for streaming stands at its head; the pictures in its second half are overwritten."""
    target = io.BytesIO()
    with av.open(io.BytesIO(long_video)) as source, av.open(target, "w", format="matroska") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    damaged = bytearray(target.getvalue())
    damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)
    with pytest.raises(wire.RequestError, match="invalid_argument"):
        wire.ask(server.grpc_url, in_prefill(bytes(damaged)))


def test_a_time_limit_ends_generation(checkpoint):
    with Server(checkpoint, {"decoder.max_generation_seconds": "1", "decoder.kv_cache_tokens": "65536"}) as limited:
        answer = wire.ask(limited.grpc_url, wire.question("Go on", sampling={**LONG, "max_tokens": 60_000}))
        assert answer.finish_reason == "time_limit"
        assert answer.text
        wire.wait_idle(limited.grpc_url)


@pytest.mark.parametrize("stage", ["video_preprocess", "vision_encoder", "decoder"])
def test_a_stage_is_killed_under_load(server, unharmed, long_video, stage):
    """Every request that was there ends with an answer or an error; the stage comes back; nothing leaks."""
    requests = [in_prefill(long_video), wire.question("Go on", sampling=LONG)] * 3
    killed = server.pids()[stage]
    heals = server.heals()

    ended: list = []
    thread = threading.Thread(target=lambda: ended.extend(wire.ask_together(server.grpc_url, requests)))
    thread.start()
    time.sleep(2)
    os.kill(killed, signal.SIGKILL)
    thread.join(timeout=120)
    assert not thread.is_alive(), "a request hangs"
    assert len(ended) == len(requests)
    assert not any(isinstance(answer, wire.SilenceError) for answer in ended), ended
    server.wait_ready(60)
    assert server.heals() != heals
    assert server.pids()[stage] != killed
    answer = wire.ask(server.grpc_url, wire.question("Still there?", sampling=SHORT))
    assert answer.usage["completion_tokens"] == 4


def test_a_decoder_called_directly_refuses_nonsense(server, unharmed):
    for header in (
        b"{",
        b"{}",
        b'{"session": "../../etc/passwd", "index": 0, "sent": 0, "open": {}, "more": "and more"}',
    ):
        inputs = [
            wire.strings("chunk_header", [header]),
            wire.tensor("token_ids", np.zeros(3, np.int32)),
            wire.tensor("positions", np.zeros((3, 3), np.int32)),
            wire.tensor("features", np.zeros((0, 1, 256), np.float32)),
        ]
        with pytest.raises(wire.RequestError, match="invalid_argument"):
            wire.ask(server.grpc_url, inputs, model="decoder")
