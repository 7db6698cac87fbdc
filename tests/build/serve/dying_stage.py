"""A toy stage; its process dies while it holds the locks of its shared memory, once a file `die` lies beside it."""

import ctypes
import re
import signal
import time
from pathlib import Path

import toy_stage

DIE = Path(__file__).with_name("die")

# glibc's pthread_mutex_t, free: no lock, a count that is left over, no owner, no user, and the kind: robust and shared.
FREE_MUTEX = re.compile(rb"\0{4}[\0\1]\0{3}\0{8}\x90\0{3}")


class TritonPythonModel(toy_stage.TritonPythonModel):
    def execute(self, requests):
        if DIE.exists():
            DIE.unlink()
            # Other threads of this process, and of Triton, wait for the locks until then. The GIL may be with one of
            # them: what ends the process is not Python.
            signal.alarm(1)
            lock_shared_memory()
            time.sleep(60)
        return super().execute(requests)


def lock_shared_memory():
    mappings = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    addresses = next(mapping[0] for mapping in mappings if "triton_python_backend_shm_region" in mapping[-1])
    start, end = (int(address, 16) for address in addresses.split("-"))
    libc = ctypes.CDLL(None)
    for mutex in FREE_MUTEX.finditer(ctypes.string_at(start, end - start)):
        libc.pthread_mutex_trylock(ctypes.c_void_p(start + mutex.start()))
