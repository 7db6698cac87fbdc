"""Where files lie, and which of them a process still writes."""

import fcntl
from dataclasses import dataclass
from pathlib import Path

from ..disk import private_folder


@dataclass(frozen=True)
class Places:
    """Paths below the folder of the uploads."""

    folder: Path

    def make(self) -> None:
        """Makes the folders. Raises OSError, which names the folder, if it cannot be written."""
        for folder in (self.folder, self.folder / "content", self.folder / "partial"):
            # Also one of before.
            private_folder(folder).chmod(0o700)

    def content(self, digest: str) -> Path:
        return self.folder / "content" / digest[:2] / digest

    def partial(self, id: str) -> Path:
        return self.folder / "partial" / id

    def everything(self) -> list[Path]:
        """Contents and what is being uploaded, known to the index or not."""
        return [*(self.folder / "partial").iterdir(), *(self.folder / "content").glob("??/*")]

    def is_being_written(self, id: str) -> bool:
        """Whether a process uploads it: its lock ends with the process, whatever the clocks say."""
        try:
            with self.partial(id).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def partial_bytes(self, id: str) -> int:
        """The bytes of it that are on the disk."""
        try:
            return self.partial(id).stat().st_size
        except FileNotFoundError:
            return 0
