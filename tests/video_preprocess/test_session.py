"""Whole requests through the service, the test playing stage 3: order, credits, heartbeats and every way to end."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess import credits, service, session
from preprocess.request.request import Inputs
from preprocess.service import Parameters, Service
from preprocess.workers.reader import Reader
from tests.support.recipient import Recipient, eventually

StartService = Callable[..., Service]
MakeRecipient = Callable[..., Recipient]
Encode = Callable[..., bytes]


def question(encode: Encode, **options: Any) -> Inputs:
    """A video of eight chunks."""
    options = {"fps": 4, "frames": 32, "width": 256, "height": 256} | options
    return Inputs(text="What?", videos=[encode(**options)], video_options='{"fps": 4}')


def test_chunks_follow_the_plan_and_are_the_whole_prompt(
    start_service: StartService, recipient: MakeRecipient, encode: Encode
) -> None:
    sent = recipient()
    inputs = question(encode)
    start_service().submit(
        replace(inputs, stream=False, progress=True, sampling_parameters='{"seed": 7}', cache_salt="alice"), sent
    )
    sent.wait()
    assert sent.error is None
    headers = [header for header, _ in sent.chunks]
    assert [header["index"] for header in headers] == list(range(len(headers)))
    assert len({header["session"] for header in headers}) == 1
    assert headers[0]["open"] == {
        "stream": False,
        "progress": True,
        "sampling_parameters": '{"seed": 7}',
        "cache_salt": "alice",
    }
    assert [bool(header.get("last")) for header in headers] == [False] * (len(headers) - 1) + [True]
    assert headers[-1]["seconds"].keys() == {"plan", "decode", "waited"}
    assert all(before["sent"] <= after["sent"] for before, after in pairwise(headers))

    plan = headers[1]["plan"]
    assert plan["media"] == [
        {"kind": "video", "grid": [16, 8, 8], "timestamps": [round(0.1 + 0.5 * i + 1e-9, 1) for i in range(16)]}
    ]
    assert plan["video_tokens"] == 16 * 16
    chunks = [chunk for _, chunk in sent.chunks]
    assert len(chunks[1].token_ids) == len(chunks[1].positions[0]) == plan["prompt_tokens"]
    np.testing.assert_array_equal(np.concatenate([chunk.token_ids for chunk in chunks[2:]]), chunks[1].token_ids)
    np.testing.assert_array_equal(np.hstack([chunk.positions for chunk in chunks[2:]]), chunks[1].positions)
    begins = np.cumsum([0, *(len(chunk.token_ids) for chunk in chunks[2:-1])])
    assert [header["begin"] for header in headers[2:]] == begins.tolist()
    assert len(set(plan["digests"])) == 16
    assert [len(chunk.patches) for chunk in chunks] == [0, 0, 4, 4, 4, 4]
    assert chunks[-1].positions.max() + 1 == plan["next_position"]
    for chunk in chunks:
        assert chunk.token_ids.dtype == np.int32
        assert chunk.positions.dtype == np.int32
        assert chunk.positions.shape == (3, len(chunk.token_ids))
        assert chunk.patches.dtype == np.uint8
        assert chunk.patches.shape[2] == 1536
        patches = chunk.patches.shape[1]
        for values, width, dtype in (
            (chunk.vision.indices, 4, np.int32),
            (chunk.vision.weights, 4, np.float32),
            (chunk.vision.rotary_cos, 12, np.float32),
            (chunk.vision.rotary_sin, 12, np.float32),
        ):
            assert values.shape == (patches, width)
            assert values.dtype == dtype


def test_what_stage_3_holds_is_neither_decoded_nor_sent(
    start_service: StartService, recipient: MakeRecipient, encode: Encode
) -> None:
    service, inputs = start_service(), question(encode)
    whole = recipient()
    service.submit(inputs, whole)
    plan, *chunks = [chunk for _, chunk in whole.wait().chunks[1:]]
    pads = plan.token_ids == np.bincount(plan.token_ids).argmax()
    patches = np.concatenate([chunk.patches for chunk in chunks])
    # The ends of temporal patches, of which the rest of one that is held in part has to come.
    ends = np.flatnonzero(pads[:-1] & ~pads[1:]) + 1
    for held, begin, missing in (
        (1, 1, 16),
        (int(ends[0]) + 2, int(ends[0]) + 2, 15),
        (int(ends[4]), int(ends[4]), 11),
        (int(ends[5]) - 1, int(ends[5]) - 16, 11),
        (int(ends[15]), int(ends[15]), 0),
        (len(plan.token_ids) - 1, len(plan.token_ids) - 1, 0),
    ):
        rest = recipient(held_tokens=held)
        service.submit(inputs, rest)
        sent = [chunk for _, chunk in rest.wait().chunks[2:]]
        assert rest.error is None
        assert rest.chunks[2][0]["begin"] == begin
        np.testing.assert_array_equal(np.concatenate([chunk.token_ids for chunk in sent]), plan.token_ids[begin:])
        np.testing.assert_array_equal(np.hstack([chunk.positions for chunk in sent]), plan.positions[:, begin:])
        shown = np.concatenate([chunk.patches.reshape(-1, *patches.shape[1:]) for chunk in sent])
        np.testing.assert_array_equal(shown, patches[16 - missing :])


def test_digests_tell_what_is_shown(start_service: StartService, recipient: MakeRecipient, encode: Encode) -> None:
    service = start_service()

    def digests(inputs: Inputs) -> list[str]:
        sent = recipient()
        service.submit(inputs, sent)
        return sent.wait().chunks[1][0]["plan"]["digests"]

    first, other = question(encode), question(encode, seed=5)
    assert digests(first) == digests(Inputs(**{**vars(first), "text": "When?"}))
    assert not set(digests(first)) & set(digests(other))
    smaller = Inputs(**{**vars(first), "video_options": '{"fps": 4, "max_tokens_per_frame": 4}'})
    assert not set(digests(first)) & set(digests(smaller))
    # The same frames among fewer.
    half = Inputs(**{**vars(first), "video_options": '{"fps": 4, "max_tokens_per_frame": 4, "end": 3.9}'})
    assert digests(half) == digests(smaller)[: len(digests(half))]


def test_text_alone_is_one_chunk_without_frames(start_service: StartService, recipient: MakeRecipient) -> None:
    sent = recipient()
    start_service().submit(Inputs(text="Hello"), sent)
    (_, _), (header, _), (_, chunk) = sent.wait().chunks
    assert header["plan"]["media"] == []
    assert chunk.patches.shape == (0, 4, 1536)
    assert len(chunk.token_ids) == header["plan"]["prompt_tokens"]


def test_never_more_chunks_than_credits(start_service: StartService, recipient: MakeRecipient, encode: Encode) -> None:
    sent = recipient(credits=1)
    start_service().submit(question(encode), sent)
    for granted in (1, 2, 3):
        eventually(lambda count=2 + granted: len(sent.chunks) == count)
        beats = sent.heartbeats
        # Two heartbeats without a chunk: stage 1 waits, and is heard.
        eventually(lambda beats=beats: sent.heartbeats >= beats + 2)
        assert len(sent.chunks) == 2 + granted
        sent.grant(1)
    sent.wait()
    assert sent.error is None
    assert sent.chunks[-1][0]["last"]


def test_heartbeats_go_on_until_the_session_is_over(start_service: StartService, recipient: MakeRecipient) -> None:
    sent = recipient(ends=False)
    start_service().submit(Inputs(text="Hello"), sent)
    eventually(lambda: len(sent.chunks) == 3 and sent.heartbeats >= 3)
    assert not sent.finished.is_set()
    sent.end()
    assert sent.wait().error is None


def test_heartbeats_while_decoding_takes_long(
    start_service: StartService, recipient: MakeRecipient, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    decode = session.data_chunks

    def slow(*arguments: Any) -> Any:
        go_on.wait(10)
        yield from decode(*arguments)

    monkeypatch.setattr(session, "data_chunks", slow)
    sent = recipient()
    start_service().submit(question(encode), sent)
    eventually(lambda: len(sent.chunks) == 2 and sent.heartbeats >= 3)
    go_on.set()
    assert sent.wait().error is None


def test_session_that_is_stopped_ends_before_the_video_is_decoded(
    start_service: StartService, recipient: MakeRecipient, encode: Encode
) -> None:
    sent = recipient(credits=1)
    start_service().submit(question(encode), sent)
    eventually(lambda: len(sent.chunks) == 3)
    sent.end()
    assert sent.wait().error is None
    assert len(sent.chunks) == 3


def test_death_of_the_decoder_is_an_error(
    start_service: StartService, recipient: MakeRecipient, encode: Encode
) -> None:
    sent = recipient(credits=1)
    start_service().submit(question(encode), sent)
    eventually(lambda: len(sent.chunks) == 3)
    sent.end(mark=b"")
    assert sent.wait().error == "unavailable: the decoder ended without finishing the session"


class Nobody:
    """Takes responses and never opens the pipe."""

    def __init__(self) -> None:
        self.error: str | None = None
        self.finished = threading.Event()

    def send(self, header: str, chunk: object) -> None:
        pass

    def fail(self, message: str) -> None:
        self.error = message
        self.finished.set()

    def close(self) -> None:
        self.finished.set()


def test_stage_alone_gives_up(start_service: StartService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credits, "WRITER_SECONDS", 0.2)
    sent = Nobody()
    start_service().submit(Inputs(text="Hello"), sent)
    assert sent.finished.wait(10)
    assert sent.error == "deadline_exceeded: no decoder opened the session's credits within 0.2 seconds"


def test_pipe_is_private_and_leaves_no_name_behind(
    start_service: StartService, recipient: MakeRecipient, parameters: Any
) -> None:
    service = start_service()
    assert parameters.credits_directory.stat().st_mode & 0o777 == 0o700
    sent = recipient(credits=0, held_tokens=None, ends=False)
    service.submit(Inputs(text="Hello"), sent)
    eventually(lambda: len(sent.chunks) == 2)
    (pipe,) = (path for path in parameters.credits_directory.iterdir() if path.name != "key")
    assert pipe.name == sent.chunks[0][0]["session"]
    assert pipe.is_fifo()
    assert pipe.stat().st_mode & 0o777 == 0o600
    sent.hold(0)
    sent.grant(1)
    eventually(lambda: len(sent.chunks) == 3)
    assert [path.name for path in parameters.credits_directory.iterdir()] == ["key"]
    sent.end()
    sent.wait()


def test_more_requests_than_accepted_are_refused_and_room_comes_back(
    start_service: StartService, recipient: MakeRecipient
) -> None:
    service = start_service(max_requests=2)
    held = [recipient(ends=False) for _ in range(2)]
    for sent in held:
        service.submit(Inputs(text="Hello"), sent)
    refused = recipient()
    service.submit(Inputs(text="Hello"), refused)
    assert refused.wait().error == (
        "resource_exhausted: 2 requests are being served, as many as are accepted; retry in 1 s"
    )
    for sent in held:
        eventually(lambda sent=sent: len(sent.chunks) == 3)
        sent.end()
        sent.wait()
    eventually(lambda: not service._live)
    again = recipient()
    service.submit(Inputs(text="Hello"), again)
    assert again.wait().error is None


def test_requests_at_the_same_time_do_not_mix(
    start_service: StartService, recipient: MakeRecipient, encode: Encode
) -> None:
    service = start_service(max_requests=8)
    inputs = [question(encode, seed=seed, frames=8 + 4 * seed) for seed in range(4)]
    alone = []
    for each in inputs:
        sent = recipient()
        service.submit(each, sent)
        alone.append(sent.wait())
    together = [recipient() for _ in inputs]
    for each, sent in zip(inputs, together, strict=True):
        service.submit(each, sent)
    for first, second in zip(alone, together, strict=True):
        second.wait()
        for (_, left), (_, right) in zip(first.chunks, second.chunks, strict=True):
            np.testing.assert_array_equal(left.token_ids, right.token_ids)
            np.testing.assert_array_equal(left.patches, right.patches)


def test_shutting_down_ends_sessions_and_threads(start_service: StartService, recipient: MakeRecipient) -> None:
    service = start_service()
    sent = recipient(ends=False)
    service.submit(Inputs(text="Hello"), sent)
    eventually(lambda: len(sent.chunks) == 3)
    service.shut_down()
    assert sent.wait().error == "unavailable: the server shuts down"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("session", "heartbeats"))]


def test_surprise_is_an_internal_error_and_the_service_goes_on(
    start_service: StartService, recipient: MakeRecipient, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start_service()
    with monkeypatch.context() as broken:
        broken.setattr(session, "make_plan", lambda *arguments: 1 / 0)
        sent = recipient()
        service.submit(Inputs(text="Hello"), sent)
        assert sent.wait().error == (
            "internal: ZeroDivisionError in video_preprocess; the server's log has the details"
        )
    again = recipient()
    service.submit(Inputs(text="Hello"), again)
    assert again.wait().error is None


def test_video_that_breaks_in_the_middle_names_the_time(
    start_service: StartService, recipient: MakeRecipient, encode: Encode
) -> None:
    content = bytearray(encode(frames=48, fps=4, key_frame_interval=8, width=256, height=256))
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    sent = recipient()
    start_service().submit(Inputs(text="What?", videos=[bytes(content)], video_options='{"fps": 4}'), sent)
    sent.wait()
    assert sent.error is not None
    assert sent.error.startswith("invalid_argument: video[0] cannot be decoded at ")
    seconds = float(sent.error.split()[-2])
    assert 2 < seconds < 10
    assert len(sent.chunks) > 2, "what comes before it was sent"


def test_bad_request_fails_before_anything_is_sent(start_service: StartService, recipient: MakeRecipient) -> None:
    sent = recipient()
    start_service().submit(Inputs(), sent)
    assert sent.wait().error == ("invalid_argument: neither text_input nor messages is given; one of them is required")
    assert sent.chunks == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"cache_salt": 7}, "the request parameter cache_salt is 7; a string is accepted"),
        ({"cache_salt": "x" * 129}, "the request parameter cache_salt has 129 characters; at most 128 are accepted"),
        ({"cache_salt": "a\ud800"}, r"cache_salt has '\\ud800', half of a surrogate pair"),
        ({"progress": "true"}, "the request parameter progress is 'true'; true or false is accepted"),
        ({"look": 1}, "the request parameter look is 1; true or false is accepted"),
        ({"messages": '[{"role": "user", "content": "\\ud800"}]', "text": None}, r"messages has '\\ud800', half of a"),
        ({"video_options": '{"subtitles": "\\udfff"}'}, r"video_options has '\\udfff', half of a surrogate pair"),
    ],
)
def test_what_comes_beside_the_question_is_checked(
    start_service: StartService, recipient: MakeRecipient, asked: Any, message: str
) -> None:
    sent = recipient()
    start_service().submit(Inputs(**{"text": "Hello", **asked}), sent)
    assert re.match(f"invalid_argument: .*{message}", str(sent.wait().error))
    assert sent.chunks == []


def test_a_video_is_remembered_for_its_owner_alone(
    start_service: StartService, recipient: MakeRecipient, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, inputs, tasks = start_service(cache_bytes=1 << 30), question(encode), [0]
    asked = Reader._asked

    def counted(*arguments: Any) -> Any:
        tasks[0] += 1
        return asked(*arguments)

    monkeypatch.setattr(Reader, "_asked", counted)

    def read(salt: str) -> int:
        before, sent = tasks[0], recipient()
        running.submit(replace(inputs, cache_salt=salt), sent)
        assert sent.wait().error is None
        return tasks[0] - before

    first = read("alice")
    assert first > 0
    assert [read(salt) for salt in ("alice", "bob", "", "bob", "", "alice")] == [0, first, first, 0, 0, 0]


def test_paths_and_attachments_are_served_alike(
    start_service: StartService, recipient: MakeRecipient, encode: Encode, tmp_path: Path
) -> None:
    content = encode("clip.mp4")
    service = start_service()
    by_path, by_bytes, in_message = recipient(), recipient(), recipient()
    service.submit(Inputs(text="?", video_uris=["clip.mp4"]), by_path)
    service.submit(Inputs(text="?", videos=[content]), by_bytes)
    parts = [{"type": "video", "video": "clip.mp4"}, {"type": "text", "text": "?"}]
    service.submit(Inputs(messages=json.dumps([{"role": "user", "content": parts}])), in_message)
    first = [chunk.token_ids.tolist() for _, chunk in by_path.wait().chunks]
    assert first == [chunk.token_ids.tolist() for _, chunk in by_bytes.wait().chunks]
    assert first == [chunk.token_ids.tolist() for _, chunk in in_message.wait().chunks]


def test_a_fresh_server_remembers_videos_and_so_does_the_next(
    checkpoint: Path, recipient: MakeRecipient, encode: Encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the configuration as it is delivered, but for the system's temporary folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    configuration = (Path(service.__file__).parents[2] / "config.pbtxt").read_text()
    values = dict(re.findall(r'key: "(\w+)" value: \{ string_value: "([^"]*)" \}', configuration))
    values |= {"checkpoint": str(checkpoint), "credits_directory": str(tmp_path / "credits")}
    inputs = question(encode)
    decoded: list[list[np.ndarray]] = []
    for _ in range(2):
        running = Service(Parameters.from_config(values, tmp_path))
        sent = recipient()
        running.submit(inputs, sent)
        decoded.append([chunk.patches for _, chunk in sent.wait().chunks])
        assert sent.error is None
        running.shut_down()
        monkeypatch.setattr("preprocess.workers.reader.Reader._asked", None)
    for first, again in zip(*decoded, strict=True):
        np.testing.assert_array_equal(first, again)
    folder = tmp_path / f"qwen3_vl_cache_{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
