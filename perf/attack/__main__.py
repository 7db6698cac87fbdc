"""`make attack`: every attack that is known, on a whole stack, with honest clients beside it."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from build.serve.deployment import end_on_signals
from perf.attack import wire
from perf.attack.expect import NotRunError
from perf.attack.field import Field
from perf.attack.honest import Asked, running
from perf.attack.kinds import connections, control, machine, media, oracle, requests, tensors  # noqa: F401
from perf.attack.processes import Watched
from perf.attack.stack import MODEL, Stack, served_model, started
from perf.attack.table import Attack, Result, chosen, outcome
from perf.support import report

CALM_SECONDS = 20.0
WORSE = 2.0
"""How much slower honest requests may be while others attack."""
PEAK_GROWTH_MIB = 1024.0
"""The growth of a process beyond what it took before."""
LOG_GROWTH_MIB = 8.0
NICENESS = 10
"""The attacker is another machine's work: here he gives way to those whom he attacks."""
NEEDED = {"own": "a stack of its own", "keyless": "an API without keys", "page": "the page"}
HELD = {True: "yes", False: "NO", None: "-"}
URLS = ("api", "keyless", "page", "http", "grpc", "metrics", "health")


@dataclass(frozen=True)
class Run:
    """asked: what honest clients saw, undisturbed and during the attacks, which began at `began` of the system's
    monotonic clock."""

    results: list[Result]
    asked: list[Asked]
    watched: Watched
    began: float


def run(stack: Stack, attacks: Sequence[Attack], calm_seconds: float) -> Run:
    watched = Watched()
    with tempfile.TemporaryDirectory(prefix="attack-") as folder, running(stack) as honest:
        field = Field(stack, Path(folder), watched)
        os.nice(NICENESS)
        wire.allow_many_connections()
        honest.wait_answered()
        field.died()
        calm = time.monotonic()
        time.sleep(calm_seconds)
        watched.forget_peaks(stack.own.pids() if stack.own else {})
        began = time.monotonic()
        lasting = [(one, one.run(field)) for one in attacks if one.lasting and not _missing(stack, one)]
        for _, held in lasting:
            next(held)
        results = [_one(field, one) for one in attacks if not one.lasting]
        results += [outcome(one, lambda held=held: _end(held)) for one, held in lasting]
    return Run(results, [one for one in honest.asked if one.started >= calm], watched, began)


def _missing(stack: Stack, attack: Attack) -> list[str]:
    return [name for name in attack.needs if getattr(stack, name) is None]


def _end(held: Iterator[None]) -> str:
    """The words of a lasting attack at its end."""
    try:
        next(held)
    except StopIteration as ended:
        return str(ended.value)
    raise RuntimeError("a lasting attack yields once")


def _one(field: Field, attack: Attack) -> Result:
    def whole() -> str:
        if missing := _missing(field.stack, attack):
            raise NotRunError(f"needs {', '.join(NEEDED.get(name, name) for name in missing)}")
        told = attack.run(field)
        assert isinstance(told, str)
        return told

    result = outcome(attack, whole)
    if result.held is None:
        return result
    with contextlib.suppress(Exception):
        field.recover()
    if dead := field.died():
        result = Result(attack, f"{', '.join(dead)} died; {result.told}", False, result.seconds)
    held = "held" if result.held else "GOT THROUGH"
    print(f"{held}: {attack.door}: {attack.name}: {result.told[:160]} ({result.seconds:.1f} s)", flush=True)
    return result


def honest_figures(asked: Sequence[Asked], began: float) -> list[report.Figure]:
    """For each kind the 95th percentile while others attack, by that before; and how many failed."""
    figures = []
    for kind in dict.fromkeys(one.kind for one in asked):
        calm, attacked = (
            [one.seconds for one in asked if one.kind == kind and not one.error and (one.started >= began) is during]
            for during in (False, True)
        )
        if calm and attacked:
            ratio = float(np.percentile(attacked, 95) / np.percentile(calm, 95))
            figures.append(report.Figure(f"honest, {kind}: p95 by undisturbed", ratio, "×", at_most=WORSE))
    failed = [one for one in asked if one.error]
    for one in failed[:5]:
        print(f"honest, {one.kind}: {one.error[:200]}")
    return [*figures, report.Figure("honest requests that failed", len(failed), "", at_most=0)]


def machine_figures(watched: Watched, log_bytes: int) -> list[report.Figure]:
    """The memory of the stack's processes, where it was started here."""
    grown = {name: watched.peak_mib.get(name, 0.0) - first for name, first in watched.first_mib.items()}
    return [
        report.Figure("processes that died", len(watched.deaths), "", at_most=0),
        *(
            report.Figure(f"{name}: peak growth of memory", mib, "MiB", at_most=PEAK_GROWTH_MIB)
            for name, mib in grown.items()
        ),
        report.Figure("growth of logs", log_bytes / 2**20, "MiB", at_most=LOG_GROWTH_MIB),
    ]


@contextlib.contextmanager
def _target(given: argparse.Namespace) -> Iterator[Stack]:
    urls = {name: getattr(given, f"{name}_url") for name in URLS}
    if not any(urls.values()):
        with started(given.model) as stack:
            yield stack
        return
    model = served_model(given.api_url, given.key_a) if given.api_url else MODEL
    keys = {"key_a": given.key_a, "key_b": given.key_b or given.key_a, "key_c": given.key_c or given.key_a}
    yield Stack(**urls, **keys, model=model)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make attack", description=__doc__)
    for name in URLS:
        form = "HOST:PORT" if name == "grpc" else "http://HOST:PORT"
        parser.add_argument(f"--{name}-url", metavar=form, help="of a stack that runs; without any, one is started")
    parser.add_argument("--key-a", help="of an owner who is attacked; for a stack that runs")
    parser.add_argument("--key-b", help="of the attacker")
    parser.add_argument("--key-c", help="of the honest clients")
    parser.add_argument("--model", default="", help="a checkpoint: folder or hub name (default: the demo's)")
    parser.add_argument("--only", default="", metavar="REGEX", help="attacks whose door or name match")
    parser.add_argument("--calm-seconds", type=float, default=CALM_SECONDS, help="before the first attack")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="where JSON goes")
    return parser.parse_args()


def main() -> None:
    given = _parse()
    end_on_signals()
    attacks = chosen(given.only)
    started_at = time.monotonic()
    with _target(given) as stack:
        before = stack.own.log_bytes() if stack.own else 0
        done = run(stack, attacks, given.calm_seconds)
        log_bytes = stack.own.log_bytes() - before if stack.own else 0
    through = [one for one in done.results if one.held is False]
    report.finish(
        "attack",
        workload={
            "attacks": len(done.results),
            "not run": [f"{one.attack.door}: {one.attack.name}" for one in done.results if one.held is None],
            "calm_seconds": given.calm_seconds,
            "honest requests": len(done.asked),
            "stack": "its own" if stack.own else "one that ran",
            "seconds": round(time.monotonic() - started_at),
        },
        columns=("attack", "door", "what happened", "seconds", "held"),
        rows=[
            (
                one.attack.name,
                one.attack.door,
                one.told,
                round(one.seconds, 1),
                {True: "yes", False: "NO", None: "-"}[one.held],
            )
            for one in done.results
        ],
        figures=[
            report.Figure("attacks that got through", len(through), "", at_most=0),
            *honest_figures(done.asked, done.began),
            *(machine_figures(done.watched, log_bytes) if stack.own else []),
        ],
        folder=given.results,
    )


if __name__ == "__main__":
    main()
