"""A stack's processes: the memory that they take, and whether they still run."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from perf.support.memory import forget_peak, own_mib, own_peak_mib

_SERVER = "tritonserver"
_STUB = "triton_python_backend_stub"


def of_serve(pid: int) -> dict[str, int]:
    """The processes of a running `python -m build.serve`, by name: itself (`serve`), what it started, and the stages.

    Workers, which come and go with the load, are not among them.
    """
    found = {"serve": pid}
    for child in _children(pid):
        name = _name(child)
        found[name] = child.pid
        if name == "triton":
            found |= {_name(stage): stage.pid for stage in _children(child.pid) if _STUB in _words(stage)[0]}
    return found


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(pid).children() if _words(child)]
    return []


def _words(process: psutil.Process) -> list[str]:
    """Empty for one that has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


def _name(process: psutil.Process) -> str:
    words = _words(process) or [""]
    if Path(words[0]).name == _SERVER:
        return "triton"
    if Path(words[0]).name == _STUB:
        # STUB MODEL/VERSION/model.py REGION ...
        return Path(words[1]).parents[1].name
    modules = [word for flag, word in itertools.pairwise(words) if flag == "-m"]
    scripts = [Path(word).stem for word in words[1:2] if not word.startswith("-")]
    return (modules or scripts or [Path(words[0]).name])[0].removeprefix("qwen3-vl-").rpartition(".")[2]


class Watched:
    """The peaks of processes' own memory since the start, and how often one of them was found dead."""

    def __init__(self) -> None:
        self.first_mib: dict[str, float] = {}
        self.peak_mib: dict[str, float] = {}
        self.deaths: list[str] = []
        self._pids: dict[str, int] = {}

    def look(self, pids: Mapping[str, int]) -> list[str]:
        """Notes the peaks since the last look; gives the names of those that have died since."""
        dead = [name for name, pid in self._pids.items() if pids.get(name) != pid]
        self.deaths += dead
        for name, pid in pids.items():
            if name in dead or name not in self.first_mib:
                self.first_mib.setdefault(name, _or_zero(own_mib, pid))
            else:
                self.peak_mib[name] = max(self.peak_mib.get(name, 0.0), _or_zero(own_peak_mib, pid))
        self._pids = dict(pids)
        return dead

    def forget_peaks(self, names: Iterable[str]) -> dict[str, float]:
        """Begins to count a peak from what these take now; the peak before is noted."""
        self.look(self._pids)
        now = {}
        for name in names:
            if name in self._pids:
                now[name] = _or_zero(own_mib, self._pids[name])
                with contextlib.suppress(OSError):
                    forget_peak(self._pids[name])
        return now

    def grown_mib(self, before: Mapping[str, float]) -> dict[str, float]:
        """How far each has been above that since `forget_peaks`."""
        return {name: _or_zero(own_peak_mib, self._pids[name]) - mib for name, mib in before.items()}


def _or_zero(look: object, pid: int) -> float:
    assert callable(look)
    try:
        mib: float = look(pid)
        return mib
    except OSError:
        return 0.0
