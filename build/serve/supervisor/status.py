"""The state of a server and of its stages, as the health endpoint shows it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StageStatus:
    """A stage as last seen."""

    running: bool
    answered_seconds_ago: float | None
    """None before its first answer, and for a stage without a probe."""
    heals: int


@dataclass(frozen=True)
class Status:
    """The whole server as last seen."""

    ready: bool
    """A model has answered since the last repair, and no stage is silent."""
    phase: str
    restarts: int
    stages: dict[str, StageStatus]
