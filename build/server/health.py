"""A readiness endpoint that tells the truth: Triton's own says 200 while its stages are dead."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from server.supervisor import Status


@contextmanager
def health_endpoint(host: str, port: int, status: Callable[[], Status]) -> Iterator[None]:
    """Answers `GET /ready` on `host:port` with the status as JSON: 200 when ready, else 503."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/ready":
                self.send_error(HTTPStatus.NOT_FOUND, "only /ready is answered here")
                return
            seen = status()
            body = json.dumps(dataclasses.asdict(seen)).encode()
            self.send_response(HTTPStatus.OK if seen.ready else HTTPStatus.SERVICE_UNAVAILABLE)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes come every few seconds: not worth a line each."""

    class Endpoint(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

    with Endpoint((host, port), Handler) as endpoint:
        threading.Thread(target=endpoint.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            endpoint.shutdown()
