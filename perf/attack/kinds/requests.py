"""The API and the page: bodies, numbers and words that hurt; other sites; keys and cookies that are guessed."""

from __future__ import annotations

import re
import secrets
import time

from perf.attack import wire
from perf.attack.expect import GotThroughError, expect
from perf.attack.field import Field
from perf.attack.honest import question
from perf.attack.kinds.control import FOREIGN, REFUSED, refused
from perf.attack.stack import REQUESTS_PER_MINUTE
from perf.attack.table import attack
from tests.support.media import make_image

MIB = 2**20
EMPTY_LISTS_MIB = (70, 230)
PAGE_MIB = 100
REFUSED_UPLOAD_MIB = 50
GUESSES = 300
JSON = {"Content-Type": "application/json"}


def empty_lists(mebibytes: int, before: bytes = b'{"messages": [', after: bytes = b"]}") -> bytes:
    """JSON that takes many times its length once it is parsed."""
    return before + b"[]," * (mebibytes * MIB // 3) + b"[]" + after


def _large_json(mebibytes: int, attribute: str, door: str, key: str | None, path: str, told: str) -> None:
    @attack(door, f"{mebibytes} MiB of empty lists {told}", expects="refused; others are answered", needs=(attribute,))
    def send(field: Field) -> str:
        body = empty_lists(mebibytes, b'{"turns": [' if door == "page" else b'{"messages": [')
        headers = {**JSON, **(wire.bearer(field.stack.key_b) if key else {})}
        with field.others(door) as seen:
            answer = wire.send(getattr(field.stack, attribute), "POST", path, body, headers, timeout_seconds=60)
        return f"{refused(answer)}; {seen}"


for _mebibytes in EMPTY_LISTS_MIB:
    _large_json(_mebibytes, "api", "API", None, "/v1/chat/completions", "without a key")
    _large_json(_mebibytes, "api", "API", "key", "/v1/chat/completions", "with a key")
_large_json(PAGE_MIB, "keyless", "keyless API", None, "/v1/summaries", "to summaries")
_large_json(PAGE_MIB, "page", "page", None, "/ask", "to ask")
_large_json(PAGE_MIB, "page", "page", None, "/summarize", "to summarize")


@attack("keyless API", "an upload from a page of another site", expects=REFUSED, needs=("keyless",))
def foreign_upload(field: Field) -> str:
    body, headers = wire.multipart("foreign.png", make_image())
    told = ""
    for foreign in ({"Origin": FOREIGN["Origin"]}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        told = refused(wire.send(field.keyless, "POST", "/v1/files", body, {**headers, **foreign}))
    return told


@attack("page", "an upload from a page of another site", expects=REFUSED, needs=("page",))
def foreign_upload_to_page(field: Field) -> str:
    told = ""
    for foreign in ({"Origin": FOREIGN["Origin"]}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        told = refused(wire.send(field.page, "POST", "/files?name=foreign.png", make_image(), foreign))
    return told


@attack("keyless API", "a chat as text/plain from another site", expects=REFUSED, needs=("keyless",))
def foreign_chat(field: Field) -> str:
    headers = {"Content-Type": "text/plain", "Origin": FOREIGN["Origin"]}
    return refused(wire.send_json(field.keyless, "/v1/chat/completions", question(field.stack.model, "Hello"), headers))


@attack("API", "half a surrogate in a question", expects=REFUSED, needs=("api",))
def half_surrogate(field: Field) -> str:
    return refused(field.chat("\ud800", field.stack.key_b))


@attack("page", "half a surrogate in a question", expects=REFUSED, needs=("page",))
def half_surrogate_to_page(field: Field) -> str:
    return refused(wire.send_json(field.page, "/ask", {"turns": [{"role": "user", "text": "\ud800"}]}))


@attack("API", "frame rates of 1e-308", expects=REFUSED, needs=("api",))
def tiny_rates(field: Field) -> str:
    import base64

    frame = base64.b64encode(make_image(format="JPEG")).decode()
    part = {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frame},{frame}"}}
    told = ""
    for extra in (
        {"mm_processor_kwargs": {"fps": 1e-308}},
        {"media_io_kwargs": {"video": {"fps": 1e-308}}},
        {"media_io_kwargs": {"video": {"fps": 5e-324, "frames_indices": [0, 2**31 - 1]}}},
    ):
        body = {**question(field.stack.model, "What?", part), **extra}
        told = refused(wire.send_json(field.api, "/v1/chat/completions", body, wire.bearer(field.stack.key_b)))
    return told


def _told_after_sending(url: str, path: str, body: bytes, headers: dict[str, str]) -> str:
    """The answer to a client that sends all before it looks for an answer."""
    with wire.connect(url, timeout_seconds=20) as connection:
        length = {"Content-Length": str(len(body))}
        try:
            connection.sendall(wire.head(url, "POST", path, {**headers, **length}) + body[:MIB])
            # By now it is refused.
            time.sleep(0.5)
            connection.sendall(body[MIB:])
            line = connection.recv(500).partition(b"\r\n")[0].decode(errors="replace")
        except (BrokenPipeError, ConnectionResetError):
            raise GotThroughError("its client is cut off while it sends, and never learns why") from None
    expect(line.startswith("HTTP/1.1 4"), f"its client reads {line!r}")
    return line


@attack("API", "a refused upload of 50 MiB is told why", expects="its client reads the refusal", needs=("api",))
def refused_upload(field: Field) -> str:
    body, headers = wire.multipart("refused.bin", bytes(REFUSED_UPLOAD_MIB * MIB))
    _told_after_sending(field.api, "/v1/files", body, headers)
    body, headers = wire.multipart("refused.bin", bytes(REFUSED_UPLOAD_MIB * MIB), purpose="none that is known")
    return _told_after_sending(field.api, "/v1/files", body, {**headers, **wire.bearer(field.stack.key_b)})


@attack("page", "a refused upload of 50 MiB is told why", expects="its client reads the refusal", needs=("page",))
def refused_upload_to_page(field: Field) -> str:
    return _told_after_sending(field.page, "/files?name=program.exe", bytes(REFUSED_UPLOAD_MIB * MIB), {})


def cookie(field: Field) -> str:
    """The cookie of a new user of the page, `name=value`."""
    given = wire.send(field.page, "GET", "/files").headers.get("set-cookie", "")
    expect("=" in given, "the page gives no cookie")
    return given.partition(";")[0]


@attack("page", "a cookie of one's own making", expects="counts as none", needs=("page",))
def forged_cookie(field: Field) -> str:
    real = cookie(field)
    name, _, value = real.partition("=")
    # A letter in the middle: the last one of base64 may hold bits that nobody reads.
    middle = len(value) // 4
    other = "A" if value[middle] != "A" else "B"
    forged = {
        "43 letters": secrets.token_urlsafe(32),
        "as long as a real one": (secrets.token_urlsafe(32) * (1 + len(value) // 43))[: len(value)],
        "one letter changed": value[:middle] + other + value[middle + 1 :],
        "its second half lost": value[: len(value) // 2],
    }
    for what, tried in forged.items():
        answer = wire.send(field.page, "GET", "/files", headers={"Cookie": f"{name}={tried}"})
        taken = answer.status == 200 and "set-cookie" not in answer.headers
        expect(not taken, f"a cookie was taken for somebody's: {what}")
    again = wire.send(field.page, "GET", "/files", headers={"Cookie": real})
    expect(again.status == 200, f"the real cookie is refused: {again}")
    return "a new one was given, or it was refused"


@attack("API", "what /docs loads", expects="nothing from elsewhere", needs=("api",))
def docs(field: Field) -> str:
    answer = wire.send(field.api, "GET", "/docs")
    text = answer.body.decode(errors="replace")
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']?((?:https?:)?//[^"'\s>]+)""", text)
    expect(not loaded, f"loads {', '.join(loaded)}")
    return "nothing from elsewhere" if answer.status == 200 else str(answer)


@attack(
    "API", f"{GUESSES} guesses of a key", expects="some are refused as too many; owners are answered", needs=("api",)
)
def guessed_keys(field: Field) -> str:
    # Owners have been at the address before that somebody now guesses from.
    for key in (field.stack.key_a, field.stack.key_b, field.stack.key_c):
        wire.send(field.api, "GET", "/v1/models", headers=wire.bearer(key))
    started = time.monotonic()
    statuses = [
        wire.send(field.api, "GET", "/v1/models", headers=wire.bearer(f"guess-{number}")).status
        for number in range(GUESSES)
    ]
    rate = GUESSES / (time.monotonic() - started)
    with field.others("API"):
        time.sleep(0.5)
    told = f"{statuses.count(401)} times 401, {statuses.count(429)} times 429, {rate:.0f} a second"
    expect(set(statuses) <= {401, 429}, f"statuses {sorted(set(statuses))}")
    expect(429 in statuses, f"nothing slows guesses down: {told}")
    return told


@attack("API", "the limits of an owner by another's key", expects="each owner has their own", needs=("api", "key_b"))
def limits_of_others(field: Field) -> str:
    """Bob asks as often as he may; Alice is answered."""
    body = {"model": field.stack.model, "messages": []}
    for _ in range(min(700, REQUESTS_PER_MINUTE) if field.stack.own is None else 100):
        wire.send_json(field.api, "/v1/chat/completions", body, wire.bearer(field.stack.key_b))
    answer = field.chat("Am I answered?")
    expect(answer.status == 200, f"Alice is told {answer}")
    return "answered"
