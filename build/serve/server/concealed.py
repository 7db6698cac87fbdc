"""Starts a program some of whose arguments no process list shows.

Triton takes its secrets as arguments, and everybody on a machine can read the arguments of every process. So the
program is started with placeholders and stopped (ptrace) before its first instruction. Its array of arguments is then
pointed at the true ones, which came as environment variables; these only its own user can read, and they are taken out
of the environment, so that no child of the program inherits them.

    what /proc/PID/cmdline shows        argv            /proc/PID/environ, for the same user only
    "--option=(hidden)\\0"       argv[3] ──────────┐
                                                   └──> "--option=SECRET\\0"
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from build.serve.server.held_locks import leave_locked

_PR_SET_PDEATHSIG = 1
_PTRACE_TRACEME, _PTRACE_DETACH = 0, 17
# Fields of /proc/PID/stat, counted from the state, which is the first behind the program's name.
_START_STACK = 25
_POINTER = struct.Struct("=Q")
_VARIABLE = "CONCEALED_ARGUMENT_"
_STDERR = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


class ConcealmentError(RuntimeError):
    """This machine forbids what hides arguments. The message says what forbids it."""


def start(
    command: Sequence[str], concealed: Mapping[str, str], environment: Mapping[str, str], output: BinaryIO
) -> subprocess.Popen[bytes]:
    """Starts `command`, in which arguments that are keys of `concealed` are shown, and their values are what is meant.

    The program has a session of its own and is told to end (SIGTERM) when the thread that started it does. It writes to
    `output`.

    Raises:
        ConcealmentError: there is something to conceal, and ptrace is not allowed here.
        OSError: the program cannot be started.
    """
    variables = {f"{_VARIABLE}{index}": value for index, value in enumerate(concealed.values())}

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        try:
            leave_locked()
        except OSError as error:
            # The program runs without this too.
            warning = f"warning: {error}: a stage that is killed while it holds a lock takes the server along\n"
            os.write(_STDERR, warning.encode())
        if concealed and _libc.ptrace(_PTRACE_TRACEME, 0, None, None):
            raise PermissionError

    try:
        process = subprocess.Popen(
            list(command),
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # Its files and its shared memory are its own user's.
            umask=0o077,
            preexec_fn=prepare,
        )
    except subprocess.SubprocessError as error:
        raise ConcealmentError("ptrace is forbidden here (kernel.yama.ptrace_scope, or a seccomp profile)") from error
    if concealed:
        # A traced program stops at its first instruction, and lets this thread into its memory.
        os.waitpid(process.pid, 0)
        try:
            _point_at(process.pid, dict(zip(concealed, variables, strict=True)))
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            _libc.ptrace(_PTRACE_DETACH, process.pid, None, None)
    return process


def _point_at(pid: int, variables: Mapping[str, str]) -> None:
    """Lets each shown argument mean the value of the variable with that name."""
    status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        # The stack begins with the number of arguments, then come pointers to them, 0, pointers to the environment, 0.
        place = int(status[_START_STACK]) + _POINTER.size
        arguments, place = _pointers(memory, place)
        environment, _ = _pointers(memory, place)
        by_name = {_text(memory, value).partition("=")[0]: at for at, value in environment.items()}
        shown = {_text(memory, value): at for at, value in arguments.items()}
        for argument, variable in variables.items():
            at = by_name[variable]
            _write(memory, shown[argument], environment[at] + len(variable) + 1)
            # A variable twice changes nothing, and this one is gone.
            _write(memory, at, next(iter(environment.values())))


def _pointers(memory: BinaryIO, place: int) -> tuple[dict[int, int], int]:
    """The pointers from `place` on up to a zero, by where they lie; and the place behind it."""
    found: dict[int, int] = {}
    while True:
        memory.seek(place)
        (value,) = _POINTER.unpack(memory.read(_POINTER.size))
        if not value:
            return found, place + _POINTER.size
        found[place] = value
        place += _POINTER.size


def _text(memory: BinaryIO, address: int) -> str:
    memory.seek(address)
    text = b""
    while b"\0" not in text:
        # Up to the end of a page: the last one may be the end of the stack.
        text += memory.read(4096 - (address + len(text)) % 4096)
    return os.fsdecode(text.partition(b"\0")[0])


def _write(memory: BinaryIO, place: int, value: int) -> None:
    memory.seek(place)
    memory.write(_POINTER.pack(value))
