"""Whose a request is: keys that are not guessed, cookies that nobody makes up, salts that nobody shares."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from qwen3_vl_client import AsyncClient
from qwen3_vl_client.connection import address
from qwen3_vl_client.front import command
from qwen3_vl_client.front.app import create_app
from qwen3_vl_client.front.http import rates
from qwen3_vl_client.front.http.rates import Rates, caller
from qwen3_vl_client.front.http.refusals import RefusedError
from qwen3_vl_client.front.http.sweeping import sweeping
from qwen3_vl_client.front.keys import Guesses
from qwen3_vl_client.front.secret import Secret
from qwen3_vl_client.front.settings import Settings
from qwen3_vl_client.options import Timeouts
from tests.support.front import served

CHAT = {"model": "qwen3-vl", "messages": [{"role": "user", "content": "Hello"}]}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_keys_are_not_guessed(settings: Settings) -> None:
    few = replace(settings, wrong_keys_per_minute=5)
    with served(create_app(few)) as url, httpx2.Client(base_url=f"{url}/v1") as http:
        assert http.get("/models", headers=bearer("key-of-ann")).status_code == 200
        told = [http.get("/models", headers=bearer(f"guess-{number}")).status_code for number in range(7)]
        assert told == [401] * 5 + [429] * 2
        # Even a right guess says nothing now; who was here before is served.
        guessed = http.get("/models", headers=bearer("key-of-bob"))
        assert (guessed.status_code, guessed.json()["error"]["code"]) == (429, "too_many_wrong_keys")
        assert int(guessed.headers["retry-after"]) >= 1
        assert http.get("/models", headers=bearer("key-of-ann")).status_code == 200


def test_other_addresses_are_not_blamed() -> None:
    guesses = Guesses(1)
    guesses.note("10.0.0.1", None)
    with pytest.raises(RefusedError):
        guesses.note("10.0.0.1", None)
    guesses.note("10.0.0.2", "ann")
    guesses.note("10.0.0.2", None)


def test_the_table_of_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates.time, "monotonic", lambda: 0.0)
    allowed = Rates(1, most_names=100)
    for number in range(1000):
        assert allowed.take(f"name-{number}") == 0
    assert allowed.take("name-999") > 0
    assert allowed.take("name-0") == 0
    assert len(allowed._buckets) == 100


def test_a_household_is_one_caller() -> None:
    assert caller(("2001:db8::1", 1)) == caller(("2001:db8::ffff:2", 2)) != caller(("2001:db8:0:1::1", 1))
    assert caller(("10.0.0.1", 1)) != caller(("10.0.0.2", 1))


def cookies(response: httpx2.Response) -> SimpleCookie:
    return SimpleCookie(response.headers.get("set-cookie", ""))


FORGED = ["x" * 43, "x" * 43 + ".", "x" * 43 + "." + "0" * 64, "", ".", "\xe4" * 43 + ".0", "x" * 10_000]


@pytest.mark.parametrize("value", FORGED)
def test_a_cookie_that_somebody_made_up_is_replaced(page: str, value: str) -> None:
    response = httpx2.get(f"{page}/", headers={b"cookie": f"owner={value}".encode("latin-1")})
    assert "." in cookies(response)["owner"].value
    assert cookies(response)["owner"].value != value


def test_a_cookie_is_its_owner_s_for_good(page: str, page_settings: Settings) -> None:
    first = cookies(httpx2.get(f"{page}/"))["owner"]
    again = httpx2.get(f"{page}/files", headers={"cookie": f"owner={first.value}"})
    assert "set-cookie" not in again.headers
    random, _, signature = first.value.partition(".")
    assert signature == Secret.load(page_settings.media_root / "uploads").derive("cookie", random)
    changed = f"{random[:-1]}{'a' if random[-1] != 'a' else 'b'}.{signature}"
    assert "set-cookie" in httpx2.get(f"{page}/", headers={"cookie": f"owner={changed}"}).headers


def test_behind_tls_a_cookie_never_leaves_it(page_settings: Settings) -> None:
    https = {"x-forwarded-proto": "https"}
    with served(create_app(page_settings), trusted_proxies=["127.0.0.1"]) as url:
        [(name, cookie)] = cookies(httpx2.get(url, headers=https)).items()
        plain = httpx2.get(url).headers["set-cookie"]
        known = httpx2.get(url, headers={**https, "cookie": f"{name}={cookie.value}"})
    assert name == "__Host-owner"
    assert cookie["secure"]
    assert cookie["httponly"]
    assert (cookie["samesite"], cookie["path"], cookie["domain"]) == ("Strict", "/", "")
    assert "set-cookie" not in known.headers
    assert "Secure" not in plain
    assert plain.startswith("owner=")


def test_an_address_has_so_many_new_users(page_settings: Settings) -> None:
    few = replace(page_settings, new_users_per_minute=3)
    with served(create_app(few)) as url:
        known = cookies(httpx2.get(f"{url}/"))["owner"].value
        for _ in range(2):
            assert httpx2.get(f"{url}/files").status_code == 200
        told = httpx2.post(f"{url}/files", params={"name": "a.mp4"}, content=b"x")
        assert (told.status_code, told.json()["error"]["code"]) == (429, "too_many_users")
        assert "set-cookie" not in told.headers
        # The page itself is everybody's, and who is known stays.
        assert httpx2.get(f"{url}/").status_code == httpx2.get(f"{url}/static/app.js").status_code == 200
        assert httpx2.get(f"{url}/files", headers={"cookie": f"owner={known}"}).status_code == 200


def load(folder: Path) -> str:
    return Secret.load(folder).derive("cache", "ann")


def test_processes_agree_on_one_secret(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as processes:
        derived = processes.map(load, [tmp_path] * 40, chunksize=1)
    assert len(set(derived)) == 1
    assert len(derived[0]) == 64
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert len((tmp_path / "secret").read_bytes()) == 32


def test_what_is_derived_tells_nothing_of_others(tmp_path: Path) -> None:
    secret = Secret.load(tmp_path)
    derived = {secret.derive(purpose, value) for purpose in ("cache", "cookie") for value in ("ann", "bob", "")}
    assert len(derived) == 6
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(ValueError, match="5 bytes; 32 are accepted"):
        Secret.load(tmp_path)


@pytest.fixture
def salts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """With which salts the server is asked."""
    seen: list[str] = []
    salted: Callable[[AsyncClient, str], AsyncClient] = AsyncClient.salted

    def noted(client: AsyncClient, salt: str) -> AsyncClient:
        seen.append(salt)
        return salted(client, salt)

    monkeypatch.setattr(AsyncClient, "salted", noted)
    return seen


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/summaries"])
def test_owners_of_keys_share_nothing_unless_the_operator_says_so(
    settings: Settings, salts: list[str], path: str
) -> None:
    body = CHAT if "chat" in path else {"model": "qwen3-vl", "video": "a.mp4"}

    def ask(changed: Settings) -> list[str]:
        salts.clear()
        with served(create_app(changed)) as url:
            for key in ("key-of-ann", "key-of-bob", "key-of-ann"):
                httpx2.post(f"{url}{path}", json=body, headers=bearer(key), timeout=60)
        return list(salts)

    ann, bob, again = ask(settings)
    assert ann == again != bob
    assert len(ann) == len(bob) == 64
    assert ask(replace(settings, share_cache=True)) == ["", "", ""]
    assert ask(replace(settings, api_keys={})) == ["", "", ""]


def test_users_of_the_page_share_nothing(page_settings: Settings, salts: list[str]) -> None:
    question = {"turns": [{"role": "user", "text": "Hello"}]}
    for shares in (False, True):
        salts.clear()
        with served(create_app(replace(page_settings, share_cache=shares))) as url:
            for _ in range(2):
                with httpx2.Client(base_url=url, timeout=60) as user:
                    assert [user.post("/ask", json=question).status_code for _ in range(2)] == [200, 200]
        assert (salts[0] == salts[1], salts[1] == salts[2]) == (True, shares)
        assert ("" in salts) == shares


def test_the_access_secret_is_sent_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWEN3_VL_ACCESS", raising=False)
    assert address("a:1", None, {"X-A": "b"}, Timeouts()).metadata == (("x-a", "b"),)
    monkeypatch.setenv("QWEN3_VL_ACCESS", "a-secret")
    assert dict(address("a:1", None, None, Timeouts()).metadata) == {"triton-grpc-protocol-qwen3-vl-access": "a-secret"}


def test_a_sweeper_goes_on_whatever_fails(caplog: pytest.LogCaptureFixture) -> None:
    swept: list[str] = []

    def full() -> None:
        swept.append("full")
        raise OSError(28, "No space left on device")

    async def run() -> None:
        async with sweeping(full, lambda: swept.append("journals"), every_seconds=0.01):
            while swept.count("journals") < 5:
                await asyncio.sleep(0.01)

    asyncio.run(run())
    assert swept.count("full") >= 5
    assert len(caplog.records) == 1


def test_what_the_command_writes_is_nobody_else_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[int] = []

    def serve(*arguments: Any, **options: Any) -> None:
        masks.append(os.umask(0o022))

    monkeypatch.setattr(command, "serve_app", serve)
    before = os.umask(0o022)
    try:
        command.app(["--media-root", str(tmp_path)], standalone_mode=False)
    finally:
        os.umask(before)
    assert masks == [0o077]
    for path in (tmp_path / "uploads").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_the_command_says_which_proxy_is_wrong(tmp_path: Path) -> None:
    options = ["--media-root", str(tmp_path), "--trusted-proxy", "proxy.example"]
    done = CliRunner().invoke(command.app, options, env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert "'proxy.example' is no address" in " ".join(done.output.split())
