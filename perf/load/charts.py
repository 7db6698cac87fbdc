"""The report's charts, drawn by plotly from the results' `series`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

Series = Mapping[str, Any]
PERCENTILES = ("p50", "p90", "p95", "p99")
# Shades of one colour for the percentiles of one thing; one colour per result.
SHADES = ("#9ecae1", "#6baed6", "#3182bd", "#08519c")
RESULTS = {"answered": "#31a354", "resource_exhausted": "#fdae6b"}
OTHER_RESULT = "#de2d26"
# Blue for stage 1, orange for stage 2, green for stage 3; what is only waited is pale.
PHASES = {
    "preprocess.plan": "#08519c",
    "preprocess.decode": "#3182bd",
    "preprocess.waited": "#deebf7",
    "encode.busy": "#e6550d",
    "encode.waited": "#fee6ce",
    "decoder.waited_for_blocks": "#e5f5e0",
    "decoder.prefill": "#006d2c",
    "decoder.generate": "#31a354",
}


def throughput(runs: Sequence[Series]) -> go.Figure:
    """Requests and tokens per second of the ensemble against concurrency."""
    found = _of(runs, "ensemble", "concurrency")
    loads = [run["load"] for run in found]
    figure = go.Figure()
    figure.add_scatter(x=loads, y=[run["requests_per_second"] for run in found], name="requests/s")
    figure.add_scatter(x=loads, y=[run["tokens_per_second"] for run in found], name="tokens/s", yaxis="y2")
    second = {"title": "tokens per second", "overlaying": "y", "side": "right", "rangemode": "tozero"}
    return _framed(figure, "Throughput against concurrency", "requests at once", "requests per second", yaxis2=second)


def latency(runs: Sequence[Series], mode: str, measure: str, title: str, knee: float | None = None) -> go.Figure:
    """Percentiles of `measure` (`first_seconds`, `gap_seconds`, `total_seconds`) of the ensemble against the load."""
    found = _of(runs, "ensemble", mode)
    figure = go.Figure()
    for percentile, colour in zip(PERCENTILES, SHADES, strict=True):
        figure.add_scatter(
            x=[run["load"] for run in found],
            y=[run[measure].get(percentile) for run in found],
            name=percentile,
            line={"color": colour},
        )
    if knee is not None:
        figure.add_vline(x=knee, line_dash="dot", annotation_text=f"knee at {knee:g}")
    load = "requests at once" if mode == "concurrency" else "requests offered per second"
    return _framed(figure, title, load, "seconds")


def stage_share(runs: Sequence[Series]) -> go.Figure:
    """Mean seconds of a request in each stage's phases, beside one another: stages work at the same time."""
    found = _of(runs, "ensemble", "concurrency")
    figure = go.Figure()
    for phase, colour in PHASES.items():
        figure.add_bar(
            x=[f"{run['load']:g}" for run in found],
            y=[run["stage_seconds"].get(phase, 0) for run in found],
            name=phase,
            marker={"color": colour},
        )
    figure.update_layout(barmode="stack")
    return _framed(figure, "Where a request's time goes (pale: waiting)", "requests at once", "seconds per request")


def stages_alone(runs: Sequence[Series]) -> go.Figure:
    """Requests per second of each stage without the others."""
    figure = go.Figure()
    for stage in dict.fromkeys(run["scenario"] for run in runs if run["scenario"] != "ensemble"):
        found = _of(runs, stage, "concurrency")
        figure.add_bar(
            x=[f"{run['load']:g}" for run in found], y=[run["requests_per_second"] for run in found], name=stage
        )
    return _framed(figure, "Each stage alone", "requests at once", "requests per second")


def memory(samples: Sequence[Series]) -> go.Figure:
    """Memory of each process over the requests of the soak."""
    figure = go.Figure()
    requests = [sample["requests"] for sample in samples]
    for process in samples[0]["processes"]:
        values = [sample["processes"][process]["memory_mib"] for sample in samples]
        figure.add_scatter(x=requests, y=values, name=process)
    figure.add_scatter(x=requests, y=[sample["shared_memory_mib"] for sample in samples], name="shared memory")
    return _framed(figure, "Memory over the soak", "requests ended", "MiB")


def resources(samples: Sequence[Series]) -> go.Figure:
    """File handles, threads and KV blocks of all processes over the requests of the soak."""
    figure = go.Figure()
    requests = [sample["requests"] for sample in samples]
    for kind in ("handles", "threads"):
        values = [sum(process[kind] for process in sample["processes"].values()) for sample in samples]
        figure.add_scatter(x=requests, y=values, name=kind)
    figure.add_scatter(x=requests, y=[sample["blocks_held"] for sample in samples], name="KV blocks held")
    return _framed(figure, "Handles, threads and KV blocks over the soak", "requests ended", "number")


def endings(outcomes: Sequence[tuple[float, float, str]], title: str) -> go.Figure:
    """How requests ended, per second. `outcomes`: (when, after how long, result)."""
    figure = go.Figure()
    for result in sorted({result for _, _, result in outcomes}):
        counts = Counter(int(ended) for ended, _, found in outcomes if found == result)
        seconds = range(max(counts) + 1)
        colour = RESULTS.get(result, OTHER_RESULT)
        figure.add_bar(x=list(seconds), y=[counts[second] for second in seconds], name=result, marker={"color": colour})
    figure.update_layout(barmode="stack", bargap=0)
    return _framed(figure, title, "seconds", "requests ended per second")


def recovery(kills: Sequence[tuple[str, float, float]]) -> go.Figure:
    """Seconds from each kill to the first answer of a request that came after it."""
    figure = go.Figure()
    for stage in dict.fromkeys(stage for stage, _, _ in kills):
        points = [(when, seconds) for killed, when, seconds in kills if killed == stage]
        figure.add_scatter(
            x=[when for when, _ in points], y=[seconds for _, seconds in points], name=stage, mode="markers"
        )
    return _framed(figure, "Time to recover from each kill", "killed at, seconds", "seconds")


def batching(tokens_per_second: Mapping[str, float]) -> go.Figure:
    """Tokens per second against concurrency, and what would be perfect."""
    loads = [int(concurrency) for concurrency in tokens_per_second]
    rates = list(tokens_per_second.values())
    figure = go.Figure()
    figure.add_scatter(x=loads, y=rates, name="measured")
    ideal = [rates[0] / loads[0] * load for load in loads]
    figure.add_scatter(x=loads, y=ideal, name="as many times that of one", line={"dash": "dot", "color": "#bdbdbd"})
    return _framed(figure, "Long answers about a short video", "requests at once", "tokens per second")


def errors(kinds: Mapping[str, int]) -> go.Figure:
    """How often each kind of error occurred, by the run that saw it."""
    figure = go.Figure()
    figure.add_bar(x=list(kinds.values()), y=list(kinds), orientation="h", marker={"color": OTHER_RESULT})
    return _framed(figure, "Errors by kind", "requests", "")


def _of(runs: Sequence[Series], scenario: str, mode: str) -> list[Series]:
    return [run for run in runs if (run["scenario"], run["mode"]) == (scenario, mode)]


def _framed(figure: go.Figure, title: str, x: str, y: str, **layout: Any) -> go.Figure:
    return figure.update_layout(
        title=title,
        xaxis={"title": x, "rangemode": "tozero"},
        yaxis={"title": y, "rangemode": "tozero"},
        template="plotly_white",
        height=400,
        margin={"l": 60, "r": 60, "t": 50, "b": 50},
        legend={"orientation": "h", "y": -0.2},
        **layout,
    )
