"""Another user of the machine, who looks for files and secrets; and a disk that is full."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from build.serve.server import triton
from perf.attack import wire
from perf.attack.expect import NotRunError, expect
from perf.attack.field import Field
from perf.attack.stack import BIN, HOST, KEYS, configured
from perf.attack.table import attack

OWN = ("own",)
SHARED_MEMORY = Path("/dev/shm")
DISK_MIB = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def _open_to_others(path: Path) -> list[str]:
    """The files there, the folder included, that are not for its user alone."""
    found = [path, *path.rglob("*")] if path.is_dir() else [path]
    shown = []
    for one in found:
        with contextlib.suppress(FileNotFoundError):
            seen = one.lstat()
            # A second name of a file that is not the stack's own has that one's mode.
            linked = stat.S_ISLNK(seen.st_mode) or (stat.S_ISREG(seen.st_mode) and seen.st_nlink > 1)
            if not linked and seen.st_mode & _OTHERS:
                shown.append(f"{one.relative_to(path.parent)} {stat.filemode(seen.st_mode)}")
    return shown


def _closed(name: str, paths: list[Path]) -> str:
    shown = [one for path in paths for one in _open_to_others(path)]
    expect(bool(paths), f"nothing of {name} was found")
    expect(not shown, f"{len(shown)} are open to others: {', '.join(shown[:3])}")
    return "for their user alone"


@attack("another local user", "reads uploads and their index", expects="files 0600, folders 0700", needs=OWN)
def read_uploads(field: Field) -> str:
    assert field.stack.own is not None
    return _closed("uploads", [field.stack.own.uploads])


@attack("another local user", "reads the repository", expects="files 0600, folders 0700", needs=OWN)
def read_repository(field: Field) -> str:
    assert field.stack.own is not None
    return _closed("the repository", [field.stack.own.repository])


@attack("another local user", "reads credits and remembered videos", expects="files 0600, folders 0700", needs=OWN)
def read_temporary(field: Field) -> str:
    assert field.stack.own is not None
    return _closed("temporary files", list(field.stack.own.temporary.iterdir()))


@attack("another local user", "reads the server's log", expects="files 0600", needs=OWN)
def read_log(field: Field) -> str:
    assert field.stack.own is not None
    return _closed("the log", list(field.stack.own.logs[:1]))


@attack("another local user", "reads shared memory of the stages", expects="files 0600", needs=OWN)
def read_shared_memory(field: Field) -> str:
    assert field.stack.own is not None
    regions = set()
    for pid in field.stack.own.pids().values():
        with contextlib.suppress(OSError):
            regions.update(re.findall(r"(/dev/shm/[^\s/]+)$", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE))
    return _closed("shared memory", [path for path in map(Path, sorted(regions)) if path.exists()])


def _secrets(field: Field) -> dict[str, list[str]]:
    """Secrets of the stack as they may be written, by what they are."""
    own = field.stack.own
    assert own is not None
    files = {"the front's secret": own.uploads / "secret"}
    if credits := configured(own.repository, "decoder", "credits_directory"):
        files["the stages' key"] = Path(credits) / "key"
    raw = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
    written = {name: [one.hex(), base64.b64encode(one).decode()] for name, one in raw.items()}
    return {**written, "an owner's key": list(KEYS.values())}


@attack("another local user", "secrets on command lines", expects="there are none", needs=OWN)
def secrets_on_command_lines(field: Field) -> str:
    own = field.stack.own
    assert own is not None
    secrets = _secrets(field)
    lines = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            lines += 1
            for name, written in secrets.items():
                expect(not any(one in line for one in written), f"{name} is on a command line")
            access = re.search(r"--(?:http-restricted-api|grpc-restricted-protocol)=\S*=[\w+/-]{16}", line)
            ours = int(path.parent.name) in own.pids().values()
            expect(not (access and ours), "the secret of Triton's restricted calls is on its command line")
    return f"none on {lines} command lines"


@attack("another local user", "secrets in logs", expects="there are none", needs=OWN)
def secrets_in_logs(field: Field) -> str:
    own = field.stack.own
    assert own is not None
    for log in own.logs:
        text = log.read_text(errors="replace") if log.is_file() else ""
        for name, written in _secrets(field).items():
            expect(not any(one in text for one in written), f"{name} is in {log.name}")
        access = re.search(r"restricted-(?:api|protocol)\S*=[\w+/-]{16}", text)
        expect(access is None, f"the secret of Triton's restricted calls is in {log.name}")
    return "none"


@contextlib.contextmanager
def _small_disk() -> Iterator[Path]:
    """A file system of its own. Raises NotRunError where none can be mounted."""
    folder = tempfile.mkdtemp(prefix="attacked-disk-")
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder]
    try:
        if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
            raise NotRunError("a small disk cannot be mounted without rights")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=False)
    finally:
        Path(folder).rmdir()


@attack("API", "a disk that is full during an upload", expects="refused; afterwards all is as before", needs=("own",))
def full_disk(field: Field) -> str:
    """An API of its own, whose media root is a small disk, before the same server."""
    (port,) = triton.free_ports(HOST, 1)
    api = f"http://{HOST}:{port}"
    command = [str(BIN / "qwen3-vl-api"), "--host", HOST, "--port", str(port), "--url", field.grpc, "--media-root"]
    with _small_disk() as disk, (field.folder / "full-disk.log").open("wb") as log:
        program = subprocess.Popen([*command, str(disk)], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            _wait(api)
            return _fill(api, disk)
        finally:
            program.terminate()
            program.wait()


def _wait(api: str) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError):
            if wire.send(api, "GET", "/v1/models").status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError("the API on the small disk did not start")


def _fill(api: str, disk: Path) -> str:
    body, headers = wire.multipart("large.bin", bytes((DISK_MIB + 8) * 2**20))
    small, _ = wire.multipart("small.bin", b"small")
    answer = wire.send(api, "POST", "/v1/files", body, headers)
    expect(answer.status in (413, 507), f"the upload was told {answer}")
    listed = wire.send(api, "GET", "/v1/files")
    expect(listed.status == 200, f"lists are told {listed}")
    again = wire.send(api, "POST", "/v1/files", small, headers)
    expect(again.status == 200, f"a small upload afterwards is told {again}")
    left = sum(path.stat().st_size for path in disk.rglob("partial/*") if path.is_file())
    expect(not left, f"{left:,} bytes of the upload are left")
    return str(answer)
