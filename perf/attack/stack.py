"""The stack that is attacked: one of our own, started as users start it, or one that runs already."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from build.assemble.published_checkpoint import find_checkpoint
from build.serve.server import triton
from perf.attack import wire
from perf.attack.processes import of_serve
from tests.support.media import make_video

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
HOST = "127.0.0.1"
HANDLES = 1024
KV_CACHE_TOKENS = 65_536
"""The cache takes its memory as it fills: a small one is full soon, and what grows then is something else."""
MODEL = "attacked"
CLIP = "clip.mp4"
"""A short video in the media root."""
KEYS = {name: f"{name}-{os.urandom(16).hex()}" for name in ("alice", "bob", "carol")}
START_SECONDS = 240.0
REQUESTS_PER_MINUTE = 100_000
"""The API's own bound would slow the attacker down, not stop him."""


@dataclass(frozen=True)
class Own:
    """A stack that was started here.

    media_root: where users' files are. made: folders that the stack itself made. logs: files that grow.
    """

    folder: Path
    media_root: Path
    programs: dict[str, subprocess.Popen[bytes]]
    logs: tuple[Path, ...]

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def temporary(self) -> Path:
        """The system's temporary folder, as the stack sees it."""
        return self.folder / "tmp"

    @property
    def uploads(self) -> Path:
        return self.media_root / "uploads"

    def pids(self) -> dict[str, int]:
        """By name, as far as they run."""
        found = of_serve(self.programs["serve"].pid)
        return {**found, **{name: one.pid for name, one in self.programs.items() if one.poll() is None}}

    def log_bytes(self) -> int:
        return sum(log.stat().st_size for log in self.logs if log.is_file())


@dataclass(frozen=True)
class Stack:
    """Where everything answers: `http://host:port`, gRPC as `host:port`. None: there is none.

    key_c is the honest user's; the attacker has key_b; key_a is of somebody else. model: its name at the API.
    """

    api: str | None
    keyless: str | None
    page: str | None
    http: str | None
    grpc: str | None
    metrics: str | None
    health: str | None
    key_a: str | None = None
    key_b: str | None = None
    key_c: str | None = None
    model: str = MODEL
    own: Own | None = None

    def doors(self) -> dict[str, str]:
        """The ports that speak HTTP, by name."""
        named = {
            "API": self.api,
            "keyless API": self.keyless,
            "page": self.page,
            "Triton HTTP": self.http,
            "metrics": self.metrics,
            "health": self.health,
        }
        return {name: url for name, url in named.items() if url is not None}


@contextlib.contextmanager
def started(model: str = "", *, fronts: bool = True) -> Iterator[Stack]:
    """The stack on free ports of this machine, with the demo's checkpoint or another; everything ends with the block.

    fronts: whether there is an API with keys, one without, and the page.

    Raises:
        RuntimeError: it did not start; the message has the end of what it wrote.
    """
    folder = Path(tempfile.mkdtemp(prefix="attacked-"))
    # What a stack keeps to itself must not depend on the folder around it.
    folder.chmod(0o755)
    own = Own(folder, folder / "media", {}, (ROOT / ".cache" / "triton-serve.log", *_outputs(folder, fronts)))
    try:
        for made in (own.media_root, own.temporary):
            made.mkdir(mode=0o755)
        make_video(own.media_root / CLIP, width=96, height=64, frames=20, fps=10, seed=3)
        stack = _start(own, model, fronts)
        _wait(stack, own)
        yield stack
    finally:
        for program in own.programs.values():
            program.send_signal(signal.SIGTERM)
        for program in own.programs.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(20)
            program.kill()
            program.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _outputs(folder: Path, fronts: bool) -> tuple[Path, ...]:
    return tuple(folder / f"{name}.log" for name in ("serve", *(("keyless", "page") if fronts else ())))


def _start(own: Own, model: str, fronts: bool) -> Stack:
    ports = triton.free_ports(HOST, 7)
    http, grpc, metrics, health, api, keyless, page = ports
    keys = own.folder / "keys.txt"
    keys.write_text("".join(f"{owner} {key}\n" for owner, key in KEYS.items()))
    keys.chmod(0o600)
    command = [
        *(sys.executable, "-m", "build.serve", "--host", HOST),
        *("--model", str(find_checkpoint(model)) if model else "", "--repository", str(own.repository)),
        *("--http-port", str(http), "--grpc-port", str(grpc)),
        *("--metrics-port", str(metrics), "--health-port", str(health), "--media-root", str(own.media_root)),
        *("--set", f"decoder.kv_cache_tokens={KV_CACHE_TOKENS}"),
    ]
    before_api = [str(BIN / "qwen3-vl-api"), "--media-root", str(own.media_root), "--model", MODEL, "--host", HOST]
    before_page = [str(BIN / "qwen3-vl-web"), "--media-root", str(own.media_root), "--host", HOST]
    if fronts:
        bounds = ["--requests-per-minute", str(REQUESTS_PER_MINUTE)]
        command += ["--front", *before_api, "--port", str(api), "--api-keys", str(keys), *bounds]
    _run(own, "serve", command)
    target = f"{HOST}:{grpc}"
    if fronts:
        _run(own, "keyless", [*before_api, "--port", str(keyless), "--url", target])
        _run(own, "page", [*before_page, "--port", str(page), "--url", target])
    urls = {port: f"http://{HOST}:{port}" for port in ports}
    return Stack(
        api=urls[api] if fronts else None,
        keyless=urls[keyless] if fronts else None,
        page=urls[page] if fronts else None,
        http=urls[http],
        grpc=target,
        metrics=urls[metrics],
        health=urls[health],
        key_a=KEYS["alice"],
        key_b=KEYS["bob"],
        key_c=KEYS["carol"],
        own=own,
    )


def _run(own: Own, name: str, command: list[str]) -> None:
    environment = {**os.environ, "TMPDIR": str(own.temporary)}
    with (own.folder / f"{name}.log").open("wb") as log:
        own.programs[name] = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_as_in_a_shell,
        )


def _as_in_a_shell() -> None:
    """As many handles as most systems give a program that asks for no more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(HANDLES, hard), hard))


def _wait(stack: Stack, own: Own) -> None:
    """Until every door answers."""
    asked = [(stack.health, "/ready"), (stack.api, "/health"), (stack.keyless, "/health"), (stack.page, "/")]
    deadline = time.monotonic() + START_SECONDS
    for url, path in asked:
        while url is not None and not _answers(url, path):
            ended = [name for name, one in own.programs.items() if one.poll() is not None]
            if ended or time.monotonic() > deadline:
                told = "\n".join((own.folder / f"{name}.log").read_text()[-2000:] for name in own.programs)
                raise RuntimeError(f"the stack did not start ({ended or 'no answer'}): {told}")
            time.sleep(0.2)


def _answers(url: str, path: str) -> bool:
    try:
        return wire.send(url, "GET", path, timeout_seconds=10).status == 200
    except OSError:
        return False


def served_model(api: str, key: str | None) -> str:
    """The name by which a running API's model is asked. Raises RuntimeError where it does not tell."""
    answer = wire.send(api, "GET", "/v1/models", headers=wire.bearer(key))
    if answer.status != 200:
        raise RuntimeError(f"{api}/v1/models is told {answer}")
    return str(answer.json()["data"][0]["id"])


def configured(repository: Path, stage: str, parameter: str) -> str:
    """The value of a parameter in an assembled repository."""
    text = (repository / stage / "config.pbtxt").read_text()
    match = re.search(rf'key: "{parameter}" value: \{{ string_value: "([^"]*)"', text)
    return match[1] if match else ""
