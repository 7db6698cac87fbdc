"""How an app is served: uvicorn, with bounds on what one connection, and all of them, may hold.

uvicorn bounds how long a connection may be idle, and how long a head may be. `BoundedProtocol` adds the others: how
many connections there are, how long a head may take, how slowly a body may be sent and a response read.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import uvicorn

from .connections import Bounds, Connections
from .handles import room_for
from .protocol import BoundedProtocol
from .quiet import quieten
from .turns import Turns

_BACKLOG = 128


def configured(
    app: Any,
    host: str = "127.0.0.1",
    port: int = 0,
    bounds: Bounds | None = None,
    *,
    trusted_proxies: Sequence[str] = (),
    grace_seconds: float = 3.0,
) -> uvicorn.Config:
    """How uvicorn serves the ASGI app; file handles are made available.

    Args:
        trusted_proxies: addresses and networks whose X-Forwarded-For and -Proto are believed.
        grace_seconds: what runs when the server is told to end may take so long to end by itself.
    """
    bounds = bounds or Bounds()
    bounds = replace(bounds, connections=room_for(bounds.connections, _BACKLOG))
    config = uvicorn.Config(
        Turns(app),
        host=host,
        port=port,
        http=cast(Any, functools.partial(BoundedProtocol, connections=Connections(bounds))),
        ws="none",
        loop="asyncio",
        log_level="warning",
        backlog=_BACKLOG,
        h11_max_incomplete_event_size=bounds.head_bytes,
        timeout_keep_alive=cast(int, bounds.idle_seconds),
        timeout_graceful_shutdown=cast(int, grace_seconds),
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        server_header=False,
    )
    quieten("asyncio", "uvicorn.error")
    return config


def serve(app: Any, host: str, port: int, bounds: Bounds | None = None, **options: Any) -> None:
    """Serves in the foreground until it is told to end; options are those of `configured`."""
    uvicorn.Server(configured(app, host, port, bounds, **options)).run()
