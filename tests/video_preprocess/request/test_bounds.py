"""What a request may carry, and all requests together: counted before anything is parsed, kept or started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from preprocess.errors import InvalidArgumentError
from preprocess.media.subtitles import MAX_FILE_BYTES
from preprocess.request.options import parse_video_options
from preprocess.request.request import Inputs
from preprocess.service import Service
from tests.support.recipient import Recipient, eventually

StartService = Callable[..., Service]
MakeRecipient = Callable[..., Recipient]
Encode = Callable[..., bytes]

SURPLUS = "x" * 600


@pytest.mark.parametrize(
    "inputs",
    [
        {"text": SURPLUS * 2},
        {"text": "你" * 400},
        {"messages": SURPLUS * 2},
        {"text": "?", "video_options": SURPLUS * 2},
        {"text": "?", "sampling_parameters": SURPLUS * 2},
        {"text": "?", "video_uris": [SURPLUS, SURPLUS]},
        {"text": SURPLUS, "video_options": SURPLUS},
    ],
)
def test_the_bytes_of_all_texts_are_bounded(
    start_service: StartService, recipient: MakeRecipient, inputs: dict[str, Any]
) -> None:
    sent = recipient()
    start_service(max_text_bytes=1024).submit(Inputs(**inputs), sent)
    assert str(sent.wait().error).startswith("invalid_argument: the request has 120")
    assert str(sent.error).endswith(" bytes of text, messages and options; at most 1024 are accepted (max_text_bytes)")


def test_attachments_are_counted_whatever_the_messages_say(
    start_service: StartService, recipient: MakeRecipient
) -> None:
    sent = recipient()
    start_service().submit(Inputs(messages="[]", videos=[b""] * 6, video_uris=[""] * 6, images=[b""] * 5), sent)
    assert sent.wait().error == ("invalid_argument: 17 videos and images are attached; at most 16 are accepted")


def test_a_large_file_of_subtitles_is_refused_as_it_comes(
    start_service: StartService, recipient: MakeRecipient
) -> None:
    sent = recipient()
    start_service().submit(Inputs(text="?", videos=[b""], subtitles=[bytes(MAX_FILE_BYTES + 1)]), sent)
    assert sent.wait().error == ("invalid_argument: subtitles[0] has 8388609 bytes; at most 8388608 bytes are accepted")


def test_the_bytes_of_all_requests_are_bounded_and_given_back(
    start_service: StartService, recipient: MakeRecipient, encode: Encode
) -> None:
    content = encode(frames=4)
    service = start_service(max_bytes_in_flight=2 * len(content))
    first, second, third = recipient(ends=False), recipient(), recipient()
    question = Inputs(text="What?", videos=[content])
    service.submit(question, first)
    eventually(lambda: bool(first.chunks) and bool(first.chunks[-1][0].get("last")))
    service.submit(question, second)
    assert second.wait().error == (
        "resource_exhausted: the requests that are being served leave no room for"
        f" {len(content) + 5} bytes more; together they may carry {2 * len(content)} (max_bytes_in_flight);"
        " retry in 1 s"
    )
    service.submit(Inputs(text="What?"), third)
    assert third.wait().error is None
    first.end()
    first.wait()
    eventually(lambda: asked_again(service, question, recipient()) is None)
    for _ in range(3):
        eventually(lambda: asked_again(service, question, recipient()) is None)


def test_an_owner_has_half_of_the_places(start_service: StartService, recipient: MakeRecipient) -> None:
    service = start_service(max_requests=4)
    mine = [recipient(ends=False) for _ in range(2)]
    for sent in mine:
        service.submit(Inputs(text="?", cache_salt="mine"), sent)
    assert asked_again(service, Inputs(text="?", cache_salt="mine"), recipient()) == (
        "resource_exhausted: 2 requests of this owner (cache_salt) are being served, as many as are accepted of one"
        " owner, half of 4; retry in 1 s"
    )
    for owner in ("", "another", "a third"):
        assert asked_again(service, Inputs(text="?", cache_salt=owner), recipient()) is None
    eventually(lambda: all(sent.chunks and bool(sent.chunks[-1][0].get("last")) for sent in mine))
    for sent in mine:
        sent.end()
        sent.wait()
    eventually(lambda: asked_again(service, Inputs(text="?", cache_salt="mine"), recipient()) is None)


def test_the_common_owner_may_have_all_places(start_service: StartService, recipient: MakeRecipient) -> None:
    service = start_service(max_requests=3)
    ours = [recipient(ends=False) for _ in range(3)]
    for sent in ours:
        service.submit(Inputs(text="?"), sent)
    eventually(lambda: all(sent.chunks and bool(sent.chunks[-1][0].get("last")) for sent in ours))
    for sent in ours:
        sent.end()
        assert sent.wait().error is None


def asked_again(service: Service, inputs: Inputs, sent: Recipient) -> str | None:
    service.submit(inputs, sent)
    return sent.wait().error


def test_a_request_that_never_fits_is_refused_for_good(start_service: StartService, recipient: MakeRecipient) -> None:
    sent = recipient()
    start_service(max_bytes_in_flight=100).submit(Inputs(text="?", images=[bytes(100)]), sent)
    assert sent.wait().error == (
        "invalid_argument: the request carries 101 bytes; at most 100 are accepted (max_bytes_in_flight)"
    )


@pytest.mark.parametrize("tag", ["../../etc/passwd", "a/b", "a\\b", "", "en\0", "e" * 40, "en-" * 20, "*", "..", "en "])
def test_a_language_is_a_tag_and_nothing_else(tag: str) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"invalid_argument: video_options.subtitles is .*a language tag is accepted"
    ):
        parse_video_options({"subtitles": tag})


@pytest.mark.parametrize("tag", ["eng", "GER", "zh-Hans-CN", "de-1996"])
def test_language_tags_are_accepted(tag: str) -> None:
    assert parse_video_options({"subtitles": tag}).subtitles == tag


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e-308", "0"])
def test_numbers_that_are_none_are_refused(start_service: StartService, recipient: MakeRecipient, number: str) -> None:
    sent = recipient()
    start_service().submit(Inputs(text="?", videos=[b"x"], video_options=f'{{"fps": {number}}}'), sent)
    assert str(sent.wait().error).startswith("invalid_argument: video_options.fps is ")


@pytest.mark.parametrize("option", ['"fps": 1e-308', '"fps": 5e-324', '"start": 1e-308', '"end": 5e-324', '"start": 0'])
def test_the_smallest_numbers_are_as_good_as_others(
    start_service: StartService, recipient: MakeRecipient, encode: Encode, option: str
) -> None:
    sent = recipient()
    start_service().submit(Inputs(text="?", videos=[encode()], video_options=f"{{{option}}}"), sent)
    assert sent.wait().error is None
