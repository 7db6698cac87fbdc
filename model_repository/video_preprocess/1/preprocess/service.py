"""The stage as Triton's adapter sees it: requests in, sessions served by a bounded pool, heartbeats for all of them."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor

import torch

from preprocess.cache.disk_cache import open_cache
from preprocess.cache.speech import load_transcriber
from preprocess.chunks.chunks import empty_chunk
from preprocess.directories import prepare_directory
from preprocess.errors import InvalidArgumentError, RequestError, ResourceExhaustedError
from preprocess.media.library import Library
from preprocess.parameters import Parameters
from preprocess.plan.prompt import PromptWriter
from preprocess.quiet_log import keep_log_short
from preprocess.request.bounds import BytesInFlight, bytes_of, check_sizes
from preprocess.request.request import Inputs
from preprocess.session import Outbox, Sender, Stage, new_session, serve
from preprocess.settings import load_settings
from preprocess.signing import Signer
from preprocess.workers.machine import memory_bytes, raise_file_limit
from preprocess.workers.pool import Workers

log = logging.getLogger(__name__)

_RECENT_ENDS = 16
_OWN_HANDLES = 64
_HANDLES_EACH = 16
"""For a request: its pipe, its files, a worker that is started for it and what they share."""
_MEMORY_SHARE = 1 / 4
"""The share of the machine's memory for what requests carry, unless it is set otherwise."""


class Service:
    """Serves requests, `max_requests` at a time, until it is shut down."""

    def __init__(self, parameters: Parameters) -> None:
        keep_log_short()
        # All that is written is this user's own, and every request needs file handles.
        os.umask(0o077)
        self._max_requests = min(parameters.max_requests, max(1, (raise_file_limit() - _OWN_HANDLES) // _HANDLES_EACH))
        if self._max_requests < parameters.max_requests:
            log.warning(
                "%s requests are served at a time, for want of file handles (ulimit -n); max_requests is %s",
                self._max_requests,
                parameters.max_requests,
            )
        # Sessions work beside one another; a pool of threads in each for resizing would only be in their way.
        torch.set_num_threads(1)
        prepare_directory(parameters.credits_directory)
        self._signer = Signer(parameters.credits_directory)
        settings = load_settings(parameters.checkpoint, context_length=parameters.context_length)
        self._workers = Workers(
            parameters.workers, parameters.worker_limits, parameters.max_workers, parameters.max_decoding_bytes
        )
        self._stage = Stage(
            settings=settings,
            writer=PromptWriter(parameters.checkpoint, settings.token_ids),
            library=Library(
                parameters.media_root,
                parameters.max_frame_pixels,
                parameters.max_video_seconds,
                parameters.max_request_pixels,
            ),
            workers=self._workers,
            cache=open_cache(parameters.cache_directory, parameters.cache_bytes),
            transcriber=load_transcriber(parameters.speech_model) if parameters.speech_model is not None else None,
            limits=parameters.limits,
            credits_directory=parameters.credits_directory,
            chunk_tokens=parameters.chunk_tokens,
        )
        self._in_flight = BytesInFlight(parameters.max_bytes_in_flight or int(memory_bytes() * _MEMORY_SHARE))
        self._heartbeat = empty_chunk(settings)
        self._heartbeat_seconds = parameters.heartbeat_seconds
        self._live: dict[str, Outbox] = {}
        self._live_of: Counter[str] = Counter()
        """How many requests of each owner."""
        self._live_changes = threading.Lock()
        self._ends: deque[float] = deque(maxlen=_RECENT_ENDS)
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(self._max_requests, thread_name_prefix="session")
        self._heart = threading.Thread(target=self._beat, name="heartbeats", daemon=True)
        self._heart.start()

    def submit(self, inputs: Inputs, sender: Sender) -> None:
        """Returns at once; every response goes to `sender`, from other threads."""
        session = new_session()
        outbox = Outbox(sender, session, self._heartbeat, self._signer)
        size, owner = bytes_of(inputs), _owner(inputs)
        try:
            check_sizes(inputs, self._stage.limits)
            self._admit(outbox, size, owner)
        except RequestError as error:
            outbox.close(str(error))
            return
        # Whoever has it first ends the request.
        claim = threading.Lock()
        try:
            self._pool.submit(self._serve, inputs, outbox, size, claim)
        except RuntimeError as error:
            # No thread can be started, or the stage shuts down. Other threads may still find the request in the queue.
            if claim.acquire(blocking=False):
                self._leave(outbox, size, owner)
                outbox.close(str(ResourceExhaustedError(f"the request cannot be served now ({error}); retry later")))

    def _admit(self, outbox: Outbox, size: int, owner: str) -> None:
        """Gives a request of `size` bytes its place; raises InvalidArgumentError or ResourceExhaustedError."""
        if size > self._in_flight.most:
            raise InvalidArgumentError(
                f"the request carries {size} bytes; at most {self._in_flight.most} are accepted (max_bytes_in_flight)"
            )
        with self._live_changes:
            retry_seconds = self._seconds_between_ends()
            if len(self._live) >= self._max_requests:
                raise ResourceExhaustedError(
                    f"{self._max_requests} requests are being served, as many as are accepted;"
                    f" retry in {retry_seconds} s"
                )
            most_each = max(1, self._max_requests // 2)
            if owner and self._live_of[owner] >= most_each:
                raise ResourceExhaustedError(
                    f"{most_each} requests of this owner (cache_salt) are being served, as many as are accepted of one"
                    f" owner, half of {self._max_requests}; retry in {retry_seconds} s"
                )
            if not self._in_flight.take(size):
                raise ResourceExhaustedError(
                    f"the requests that are being served leave no room for {size} bytes more; together they may carry"
                    f" {self._in_flight.most} (max_bytes_in_flight); retry in {retry_seconds} s"
                )
            self._live[outbox.session] = outbox
            self._live_of[owner] += 1

    def _leave(self, outbox: Outbox, size: int, owner: str) -> None:
        with self._live_changes:
            del self._live[outbox.session]
            self._live_of[owner] -= 1
            if not self._live_of[owner]:
                del self._live_of[owner]
            self._ends.append(time.monotonic())
        self._in_flight.give_back(size)

    def shut_down(self) -> None:
        """Ends every session with an error and every thread."""
        self._stopping.set()
        self._pool.shutdown(wait=True)
        self._heart.join()
        self._workers.shut_down()

    def _serve(self, inputs: Inputs, outbox: Outbox, size: int, claim: threading.Lock) -> None:
        if not claim.acquire(blocking=False):
            return
        try:
            serve(inputs, self._stage, outbox, self._stopping)
        finally:
            self._leave(outbox, size, _owner(inputs))

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


def _owner(inputs: Inputs) -> str:
    """The owner of a request; one whose cache_salt is no text is refused as soon as it is served."""
    return inputs.cache_salt if isinstance(inputs.cache_salt, str) else ""
