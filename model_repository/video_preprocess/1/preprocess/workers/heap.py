"""The C library's heap: one for all threads, which gives back to the system what is large."""

from __future__ import annotations

import ctypes

LARGE_BYTES = 1 << 20

# From glibc's malloc.h.
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def return_large_memory() -> None:
    """Makes every allocation of LARGE_BYTES or more a mapping of its own, and others come from one heap.

    Left alone, glibc raises that bound to the largest mapping that was ever freed, and keeps what lies below it for
    each thread that worked: chunks of megabytes, for as long as the process lives. Other C libraries have no such
    settings, and nothing is done.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_ARENA_MAX, 1)


def return_free_memory() -> None:
    """Gives back to the system what the heap keeps of small allocations, after work that made very many."""
    if malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        malloc_trim(0)
