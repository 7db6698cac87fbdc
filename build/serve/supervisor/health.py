"""A readiness endpoint that tells the truth: Triton's own says 200 while its stages are dead."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from build.serve.supervisor.status import Status

MAX_CONNECTIONS = 64
"""With one more, the oldest is closed: a probe is answered at once, and needs no connection that stays."""
MAX_SECONDS = 5.0
"""A connection lasts at most this long."""


@contextmanager
def health_endpoint(host: str, port: int, status: Callable[[], Status], names: Collection[str] = ()) -> Iterator[None]:
    """Answers `GET /ready` on `host:port` with the status as JSON: 200 when ready, else 503.

    names: by which it may be asked, beside addresses and this machine's own name. Who is sent here by a name that
    somebody else controls (DNS rebinding) is refused with 421.
    """
    known = {"localhost", socket.gethostname().lower(), host.lower(), *(name.lower() for name in names)}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not _is_known(self.headers.get("Host"), known):
                self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "the Host is not one of this server's")
            elif self.path != "/ready":
                self.send_error(HTTPStatus.NOT_FOUND, "only /ready is answered here")
            else:
                self._tell(status())

        def _tell(self, seen: Status) -> None:
            body = json.dumps(dataclasses.asdict(seen)).encode()
            self.send_response(HTTPStatus.OK if seen.ready else HTTPStatus.SERVICE_UNAVAILABLE)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes come every few seconds: not worth a line each."""

    with _Endpoint((host, port), Handler) as endpoint:
        threading.Thread(target=endpoint.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            endpoint.shutdown()


class _Endpoint(ThreadingHTTPServer):
    """A thread for each connection, of which there are few, and none for long."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._opened: dict[socket.socket, float] = {}
        self._opened_changes = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._opened_changes:
            if len(self._opened) >= MAX_CONNECTIONS:
                _hang_up(next(iter(self._opened)))
            self._opened[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._opened_changes:
            self._opened.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called several times a second."""
        with self._opened_changes:
            for connection, opened in self._opened.items():
                if time.monotonic() - opened > MAX_SECONDS:
                    _hang_up(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was closed, by whom ever, is not worth a traceback."""


def _hang_up(connection: socket.socket) -> None:
    """Ends the thread that reads it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _is_known(host: str | None, names: Collection[str]) -> bool:
    """An address cannot be rebound; HTTP/1.0 probes send no Host."""
    if host is None:
        return True
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower() in names
    return True
