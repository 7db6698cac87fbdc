"""Stage 3's metrics, counted where things happen; `metrics_port.py` puts them on Triton's metrics port."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

_WAITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_GAPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(frozen=True)
class Metric:
    """label: the name of the one label that its values differ by, if there is one. buckets: those of a histogram."""

    name: str
    help: str
    label: str = ""
    buckets: tuple[float, ...] = ()


TOKENS = Metric("qwen3_vl_tokens_total", "Tokens that were computed, by phase: prefill, decode", label="phase")
PREFIX_HIT_TOKENS = Metric("qwen3_vl_prefix_hit_tokens_total", "Tokens of prompts that were in the KV cache already")
REQUESTS = Metric("qwen3_vl_requests_total", "Requests that ended, by finish reason or code of error", label="reason")
QUEUE_SECONDS = Metric("qwen3_vl_queue_seconds", "Time that a request waited for KV blocks", buckets=_WAITS)
FIRST_TOKEN_SECONDS = Metric(
    "qwen3_vl_first_token_seconds", "Time from a request's arrival to its first token", buckets=_WAITS
)
BETWEEN_TOKENS_SECONDS = Metric(
    "qwen3_vl_between_tokens_seconds", "Time from one token of an answer to the next", buckets=_GAPS
)
BLOCKS = Metric(
    "qwen3_vl_kv_blocks",
    "Blocks of the KV cache: reserved for requests, cached for prompts that begin the same way, or free",
    label="state",
)
BATCH_SIZE = Metric("qwen3_vl_batch_size", "Requests in the in-flight batch")
QUEUE_LENGTH = Metric("qwen3_vl_queue_length", "Requests that wait for KV blocks")
QUEUE_OLDEST_SECONDS = Metric("qwen3_vl_queue_oldest_seconds", "How long the first of these has waited")

COUNTERS = (TOKENS, PREFIX_HIT_TOKENS, REQUESTS)
HISTOGRAMS = (QUEUE_SECONDS, FIRST_TOKEN_SECONDS, BETWEEN_TOKENS_SECONDS)
GAUGES = (BLOCKS, BATCH_SIZE, QUEUE_LENGTH, QUEUE_OLDEST_SECONDS)


@dataclass(frozen=True)
class Counted:
    """Counts since the last time, by metric and label's value; and observed seconds, by metric."""

    counts: dict[tuple[Metric, str], int]
    observed: list[tuple[Metric, float]]


class Metrics:
    """Counts for whoever takes the counts away. Times are in seconds of the system's monotonic clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[Metric, str]] = Counter()
        self._observed: list[tuple[Metric, float]] = []
        self._waiting: dict[str, float] = {}

    def count(self, metric: Metric, amount: int = 1, label: str = "") -> None:
        """Adds to one of COUNTERS."""
        with self._lock:
            self._counts[metric, label] += amount

    def observe(self, metric: Metric, seconds: float) -> None:
        """Adds a value to one of HISTOGRAMS."""
        with self._lock:
            self._observed.append((metric, seconds))

    def queued(self, session: str, now: float) -> None:
        """A session has begun to wait for KV blocks."""
        with self._lock:
            self._waiting[session] = now

    def dequeued(self, session: str) -> None:
        """It waits no longer, if it did."""
        with self._lock:
            self._waiting.pop(session, None)

    def oldest_seconds(self, now: float) -> float:
        """How long the session that has waited longest has; 0 where none waits."""
        with self._lock:
            return now - next(iter(self._waiting.values()), now)

    def take(self) -> Counted:
        """Everything that was counted since the last call."""
        with self._lock:
            taken = Counted(dict(self._counts), self._observed)
            self._counts, self._observed = Counter(), []
        return taken
