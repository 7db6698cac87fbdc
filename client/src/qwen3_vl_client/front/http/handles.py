"""File handles for as many connections as are allowed: each needs one, and so do the files that it reads or writes."""

from __future__ import annotations

import logging
import resource

_log = logging.getLogger(__name__)

_EACH = 2
"""Handles of a connection: its own, and that of a file."""
_OTHERS = 256
"""For everything else: libraries, connections to the server, decoders' pipes."""


def room_for(connections: int, backlog: int) -> int:
    """Raises the soft limit of file handles to what that many connections need; tells how many there may be.

    `backlog` connections may be accepted at once before the first of them is looked at, and wait to be closed.
    """
    fixed = _OTHERS + 4 * backlog
    needed = fixed + _EACH * connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed == needed:
        return connections
    fewer = max(1, (allowed - fixed) // _EACH)
    _log.warning(
        "%d connections need %d file handles, the hard limit is %d: at most %d connections are kept",
        connections,
        needed,
        hard,
        fewer,
    )
    return fewer
