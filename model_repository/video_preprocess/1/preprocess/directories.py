"""The stage's own folders: private to its user, in the system's temporary folder unless they are set."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def default_directory(purpose: str) -> Path:
    return Path(tempfile.gettempdir()) / f"qwen3_vl_{purpose}_{os.getuid()}"


def prepare_directory(directory: Path) -> None:
    """Makes a directory private to this user, or one that is; raises PermissionError if it is somebody else's."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat(follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(f"{directory} is not a directory of user {os.getuid()}")
    directory.chmod(0o700)
