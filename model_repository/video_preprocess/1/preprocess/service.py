"""The stage as Triton's adapter sees it: requests in, sessions served by a bounded pool, heartbeats for all of them."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from preprocess.chunks import empty_chunk
from preprocess.directories import default_directory, prepare_directory
from preprocess.errors import ResourceExhaustedError
from preprocess.media import MAX_SECONDS, Library
from preprocess.memory import Memory
from preprocess.prompt import PromptWriter
from preprocess.request import Inputs, Limits
from preprocess.session import Outbox, Sender, Stage, new_session, serve
from preprocess.settings import load_settings
from preprocess.speech import load_transcriber
from preprocess.workers import WorkerLimits, Workers

log = logging.getLogger(__name__)

_RECENT_ENDS = 16


@dataclass(frozen=True)
class Parameters:
    """The `parameters` of config.pbtxt."""

    checkpoint: Path
    media_root: Path | None
    credits_directory: Path
    context_length: int | None
    chunk_tokens: int
    heartbeat_seconds: float
    max_requests: int
    max_attachments: int
    max_frame_pixels: int
    memory_directory: Path
    memory_bytes: int = 0
    max_video_seconds: float = MAX_SECONDS
    speech_model: Path | None = None
    workers: int = 2
    worker_limits: WorkerLimits = field(default_factory=WorkerLimits)

    @classmethod
    def from_config(cls, values: Mapping[str, str], version_folder: Path) -> Parameters:
        """From the strings of config.pbtxt, where an empty one is the default; raises ValueError for a bad number."""

        def directory(purpose: str) -> Path:
            return Path(values[f"{purpose}_directory"] or default_directory(purpose))

        return cls(
            checkpoint=version_folder / values["checkpoint"],
            media_root=Path(values["media_root"]) if values["media_root"] else None,
            credits_directory=directory("credits"),
            context_length=int(values["context_length"]) if values["context_length"] else None,
            chunk_tokens=int(values["chunk_tokens"]),
            heartbeat_seconds=float(values["heartbeat_seconds"]),
            max_requests=int(values["max_requests"]),
            max_attachments=int(values["max_attachments"]),
            max_frame_pixels=int(values["max_frame_pixels"]),
            memory_directory=directory("memory"),
            memory_bytes=int(values["memory_bytes"]),
            max_video_seconds=float(values["max_video_seconds"]),
            speech_model=Path(values["speech_model"]) if values["speech_model"] else None,
            workers=int(values["workers"]),
            worker_limits=WorkerLimits(
                memory_bytes=int(values["worker_memory_bytes"]),
                cpu_seconds=int(values["worker_cpu_seconds"]),
                stall_seconds=float(values["worker_stall_seconds"]),
            ),
        )


class Service:
    """Serves requests, `max_requests` at a time, until it is shut down."""

    def __init__(self, parameters: Parameters) -> None:
        # Sessions work beside one another; a pool of threads in each for resizing would only be in their way.
        torch.set_num_threads(1)
        prepare_directory(parameters.credits_directory)
        settings = load_settings(parameters.checkpoint, context_length=parameters.context_length)
        self._workers = Workers(parameters.workers, parameters.worker_limits)
        memory = None
        if parameters.memory_bytes:
            prepare_directory(parameters.memory_directory)
            memory = Memory(parameters.memory_directory, parameters.memory_bytes)
        self._stage = Stage(
            settings=settings,
            writer=PromptWriter(parameters.checkpoint, settings.token_ids),
            library=Library(
                parameters.media_root,
                parameters.max_frame_pixels,
                memory,
                self._workers,
                parameters.max_video_seconds,
                load_transcriber(parameters.speech_model) if parameters.speech_model is not None else None,
            ),
            limits=Limits(parameters.max_attachments),
            credits_directory=parameters.credits_directory,
            chunk_tokens=parameters.chunk_tokens,
        )
        self._max_requests = parameters.max_requests
        self._heartbeat = empty_chunk(settings)
        self._heartbeat_seconds = parameters.heartbeat_seconds
        self._live: dict[str, Outbox] = {}
        self._live_changes = threading.Lock()
        self._ends: deque[float] = deque(maxlen=_RECENT_ENDS)
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(parameters.max_requests, thread_name_prefix="session")
        self._heart = threading.Thread(target=self._beat, name="heartbeats", daemon=True)
        self._heart.start()

    def submit(self, inputs: Inputs, sender: Sender) -> None:
        """Returns at once; every response goes to `sender`, from other threads."""
        session = new_session()
        outbox = Outbox(sender, session, self._heartbeat)
        with self._live_changes:
            full = len(self._live) >= self._max_requests
            if not full:
                self._live[session] = outbox
            retry_seconds = self._seconds_between_ends()
        if full:
            error = ResourceExhaustedError(
                f"{self._max_requests} requests are being served, as many as are accepted; retry in {retry_seconds} s"
            )
            outbox.close(str(error))
            return
        self._pool.submit(self._serve, inputs, outbox)

    def shut_down(self) -> None:
        """Ends every session with an error and every thread."""
        self._stopping.set()
        self._pool.shutdown(wait=True)
        self._heart.join()
        self._workers.shut_down()

    def _serve(self, inputs: Inputs, outbox: Outbox) -> None:
        try:
            serve(inputs, self._stage, outbox, self._stopping)
        finally:
            with self._live_changes:
                del self._live[outbox.session]
                self._ends.append(time.monotonic())

    def _seconds_between_ends(self) -> int:
        """After which a place becomes free, as requests ended of late; 1 at least."""
        if not self._ends:
            return 1
        return max(1, math.ceil((time.monotonic() - self._ends[0]) / len(self._ends)))

    def _beat(self) -> None:
        while not self._stopping.wait(self._heartbeat_seconds / 4):
            with self._live_changes:
                live = list(self._live.items())
            for session, outbox in live:
                try:
                    outbox.beat(self._heartbeat_seconds)
                except Exception:
                    # The session's own thread meets the same error, and ends it.
                    log.exception("session %s took no heartbeat", session)
