"""One Triton server process, the stub processes of its stages, and what they leave behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from build.serve.server import concealed
from build.serve.server.log_file import open_log, trim_log
from build.serve.server.prerequisites import SHARED_MEMORY

_PROC = Path("/proc")
_STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class Stub:
    """The process that runs an instance of a Python stage, and its region of shared memory."""

    stage: str
    pid: int
    region: str


class TritonProcess:
    """Starts `command` in a process group of its own, so that a terminal's Ctrl-C reaches the supervisor only.

    It ends when the thread that starts it does, so that a supervisor that is killed leaves no server behind.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, hidden: Mapping[str, str] | None = None
    ) -> None:
        """The server and its stages write to the file `log`, at its end.

        hidden: what the arguments mean that are shown to other users in another form; see `concealed.start`.
        """
        self._regions: set[str] = set()
        self._log = log
        with open_log(log) as output:
            self._process = concealed.start(command, hidden or {}, environment, output)

    @property
    def pid(self) -> int:
        """The server's process id, which is also its group's."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """None while the server runs; else its exit status, or a signal's number below zero."""
        return self._process.poll()

    def stubs(self) -> dict[int, Stub]:
        """The stubs that run now, by process id: a dead one is a zombie until the server unloads its stage.

        Closes their regions to other users: the Python backend lets everybody read them, whatever the umask.
        """
        found = {}
        for folder in _PROC.iterdir():
            if folder.name.isdecimal() and (stub := self._stub(int(folder.name))):
                found[stub.pid] = stub
        for region in {stub.region for stub in found.values()} - self._regions:
            with contextlib.suppress(FileNotFoundError):
                (SHARED_MEMORY / region).chmod(0o600)
                self._regions.add(region)
        return found

    def trim_log(self) -> None:
        """Keeps the log within its bound."""
        trim_log(self._log)

    def runs(self, stub: Stub) -> bool:
        """Whether this stub is still there."""
        return self._stub(stub.pid) == stub

    def stop(self, grace_seconds: float = 5.0) -> None:
        """Ends the server, its stages and their shared memory; at once when `grace_seconds` is 0."""
        self.stubs()
        if grace_seconds:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for region in self._regions:
            (SHARED_MEMORY / region).unlink(missing_ok=True)

    def _stub(self, pid: int) -> Stub | None:
        """The stub with this process id, if it is one of this server's and runs. A zombie has no command line."""
        try:
            # After the command's name in parentheses come the state and the parent.
            state, parent = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) != self.pid or state in "ZX":
                return None
            arguments = (_PROC / str(pid) / "cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            return None
        if Path(arguments[0]).name != _STUB:
            return None
        # STUB MODEL/VERSION/model.py REGION ...
        return Stub(stage=Path(arguments[1]).parents[1].name, pid=pid, region=arguments[2])
