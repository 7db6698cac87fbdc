"""What is checked and built before anything is sent."""

import json
from pathlib import Path
from typing import Any

import pytest

from qwen3_vl_client import Client, InvalidRequest, SamplingParameters, Timeouts, VideoOptions, media, messages, options
from qwen3_vl_client import request as requests


def test_bytes_are_length_prefixed_little_endian() -> None:
    outgoing = requests.ask([b"abc", b"x" * 258], "q", None, None, None, {}, {})
    raw = dict(zip((i.name for i in outgoing.message.inputs), outgoing.message.raw_input_contents, strict=True))
    assert raw["video"] == b"\x03\0\0\0abc" + b"\x02\x01\0\0" + b"x" * 258
    assert {i.name: list(i.shape) for i in outgoing.message.inputs} == {"text_input": [1], "video": [2]}


def test_request_ids_are_unique() -> None:
    assert len({requests.ask(None, "q", None, None, None, {}, {}).request_id for _ in range(100)}) == 100


def test_options_as_objects_mappings_and_keywords() -> None:
    sampling, video = options.merge(SamplingParameters(max_tokens=5, top_k=2), {"later": 1}, {"top_k": 3, "fps": 0.5})
    assert sampling == {"max_tokens": 5, "top_k": 3}
    assert video == {"later": 1, "fps": 0.5}
    assert options.merge(None, VideoOptions(end=4.0), {})[1] == {"end": 4.0}


def test_unknown_keyword_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"'max_token'; options are .*max_tokens"):
        options.merge(None, None, {"max_token": 5})


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_timeouts_are_above_zero(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"timeouts.silence is .*above 0"):
        Timeouts(silence=seconds)


@pytest.mark.parametrize("url", ["http://localhost:8001", "localhost", "localhost:port", "a b:1"])
def test_url_is_host_and_port(url: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        Client(url)


def test_wrong_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    wrong: list[tuple[Any, str]] = [
        (tmp_path / "no.mp4", r"video '.*no.mp4' does not exist"),
        (str(tmp_path), "is a folder"),
        (empty, r"video '.*empty.mp4' is empty"),
        (b"", "video of 0 bytes is empty"),
        ("a\0b", "cannot be read"),
        (7, "video is a int; a path or bytes are accepted"),
    ]
    for medium, message in wrong:
        with pytest.raises(InvalidRequest, match=message):
            media.read("video", [b"fine", medium])


def test_too_large_for_one_message_is_refused_unread(tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    with large.open("wb") as file:
        file.truncate(media.MAX_UPLOAD_BYTES // 2 + 1)
    with pytest.raises(InvalidRequest, match="uri="):
        media.read("video", [large, large])


def test_media_of_both_kinds_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MAX_UPLOAD_BYTES", 10)
    requests.ask([b"12345"], "q", [b"12345"], None, None, {}, {})
    with pytest.raises(InvalidRequest, match="11 bytes; at most 10"):
        requests.ask([b"12345"], "q", [b"123456"], None, None, {}, {})


def test_empty_question_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="question is empty"):
        requests.ask([b"1"], "", None, None, None, {}, {})


@pytest.mark.parametrize("value", [float("nan"), {1, 2}])
def test_value_that_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="temperature"):
        requests.ask(None, "q", None, None, None, {"temperature": value}, {})


def test_conversation_refers_to_its_media_by_index() -> None:
    converted = messages.convert(
        [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "video", "video": "a.mp4"},
                    {"type": "image", "image": b"i"},
                    {"type": "video", "uri": "b/c.mp4"},
                    {"type": "video", "video": b"v"},
                    {"type": "text", "text": "What?"},
                ],
            },
        ]
    )
    assert converted.videos == ["a.mp4", b"v"]
    assert converted.images == [b"i"]
    assert converted.messages[0] == {"role": "system", "content": "Be brief."}
    assert [part.get("video", part.get("image")) for part in converted.messages[1]["content"]] == [
        0,
        0,
        "b/c.mp4",
        1,
        None,
    ]


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        ([], "messages is empty"),
        ([{"role": "user"}], r"messages\[0\] has the keys \['role'\]"),
        ([{"role": "user", "content": [{"type": "audio"}]}], r"messages\[0\].content\[0\].type is 'audio'"),
        ([{"role": "user", "content": [{"type": "video", "video": b"", "fps": 1}]}], "keys.*fps"),
    ],
)
def test_wrong_conversation(conversation: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        messages.convert(conversation)


def test_stop_has_the_same_request_id() -> None:
    message = requests.stop("7f")
    assert (message.model_name, message.id) == ("decoder", "7f")
    assert (message.inputs[0].name, message.inputs[0].datatype, message.raw_input_contents[0]) == (
        "stop",
        "BOOL",
        b"\x01",
    )


def test_messages_travel_as_json() -> None:
    outgoing = requests.chat([{"role": "user", "content": [{"type": "text", "text": "雨"}]}], {"seed": 1}, {})
    raw = dict(zip((i.name for i in outgoing.message.inputs), outgoing.message.raw_input_contents, strict=True))
    assert json.loads(raw["messages"][4:]) == [{"role": "user", "content": [{"type": "text", "text": "雨"}]}]
    assert json.loads(raw["sampling_parameters"][4:]) == {"seed": 1}


def test_subtitles_go_with_their_videos() -> None:
    parts = [
        {"type": "video", "uri": "a.mp4", "subtitles": b"A"},
        {"type": "video", "video": b"12345"},
        {"type": "video", "uri": "b.mp4"},
        {"type": "text", "text": "?"},
    ]
    converted = messages.convert([{"role": "user", "content": parts}])
    assert [part.get("video") for part in converted.messages[0]["content"]] == [1, 0, "b.mp4", None]
    assert (converted.videos, converted.uris, converted.subtitles) == ([b"12345"], ["a.mp4"], [None, b"A"])
    outgoing = requests.chat([{"role": "user", "content": parts}], {}, {})
    sent = dict(zip((each.name for each in outgoing.message.inputs), outgoing.message.raw_input_contents, strict=True))
    assert sent["subtitles"] == b"\0\0\0\0" + b"\1\0\0\0A"
    assert sent["video_uri"] == b"\5\0\0\0a.mp4"


def test_whole_answers_are_asked_for() -> None:
    pieces, whole = (requests.ask(None, "q", None, None, None, {}, {}, whole=whole).message for whole in (False, True))
    assert [tensor.name for tensor in pieces.inputs] == ["text_input"]
    assert [tensor.name for tensor in whole.inputs] == ["text_input", "stream"]
    assert whole.raw_input_contents[1] == b"\0"
