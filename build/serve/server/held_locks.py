"""Keeps a server alive one of whose stages dies while it holds a lock.

Triton and a stage's process share memory, and in it are robust mutexes. When a process dies that holds one, the kernel
marks the mutex, and the next to lock it is told so (EOWNERDEAD). Triton's Python backend makes an exception of that
(`boost::interprocess::lock_exception`) where nothing catches one, and the whole server aborts.

The kernel learns from `set_robust_list` which mutexes a thread may hold. Here that call succeeds and does nothing, in
Triton and in all processes that it starts, so that a mutex whose holder died just stays locked. A thread of the stage
that has died waits for it from then on; the stage that is loaded in its place has memory and locks of its own.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
# Without it, older kernels slow the process down against Spectre.
_SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
_RETURN_ALLOW, _RETURN_ERROR_0 = 0x7FFF0000, 0x00050000
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
# Where `struct seccomp_data` has the number of the call, and the architecture that the number is of.
_NUMBER, _ARCHITECTURE = 0, 4
# The architecture (AUDIT_ARCH_...), and its numbers of set_robust_list and seccomp.
_CALLS = {"x86_64": (0xC000003E, 273, 317), "aarch64": (0xC00000B7, 99, 277)}

_INSTRUCTION = struct.Struct("=HBBI")

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """The kernel's `struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def leave_locked() -> None:
    """In this process and those that it starts, a mutex whose holder dies stays locked. OSError where that fails."""
    machine = platform.machine()
    if machine not in _CALLS:
        raise OSError(f"no system calls are known of {machine}")
    architecture, set_robust_list, seccomp = _CALLS[machine]
    instructions = (
        (_LOAD_WORD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 0, 3, architecture),
        (_LOAD_WORD, 0, 0, _NUMBER),
        (_JUMP_IF_EQUAL, 0, 1, set_robust_list),
        (_RETURN, 0, 0, _RETURN_ERROR_0),
        (_RETURN, 0, 0, _RETURN_ALLOW),
    )
    program = _Program(len(instructions), b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions))
    # Nobody may filter the calls of a program that has more rights than its caller.
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    flags = _SECCOMP_FILTER_FLAG_SPEC_ALLOW
    if _libc.syscall(seccomp, _SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
