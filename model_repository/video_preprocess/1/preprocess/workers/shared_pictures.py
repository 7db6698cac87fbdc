"""Memory that a worker writes pictures to, and the stage reads them from."""

from __future__ import annotations

import fcntl
import mmap
import os

import numpy as np

from preprocess.errors import machine_resources
from preprocess.media.frames import Picture
from preprocess.workers.channel import SLOTS, Message
from preprocess.workers.worker import Worker


class SharedPictures:
    """The stage's side of it. Its size is sealed: nobody can take away what is being read."""

    def __init__(self, slot_bytes: int, worker: Worker) -> None:
        with machine_resources():
            file = os.memfd_create("pictures", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(file, SLOTS * slot_bytes)
                fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
                self._memory = mmap.mmap(file, SLOTS * slot_bytes)
                worker.reply(Message({}, file=file))
            finally:
                os.close(file)
        self._slot_bytes = slot_bytes

    def picture(self, slot: int, height: int, width: int) -> Picture:
        """A view; raises ValueError for one that lies outside."""
        if not 0 <= slot < SLOTS or height < 1 or width < 1 or 3 * height * width > self._slot_bytes:
            raise ValueError(f"a picture of {width}x{height} in slot {slot}")
        pixels = np.frombuffer(self._memory, np.uint8, 3 * height * width, slot * self._slot_bytes)
        return pixels.reshape(height, width, 3)
