"""Which names a server answers to, and from which pages its state may be changed.

A page on the internet may point its own name at this machine (DNS rebinding): a browser then sends that name as the
Host. And it may send a request here without asking anybody first: a browser then tells where it came from.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from .refusals import Answer, RefusedError

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^\[\]:@/\s]+))(?::\d*)?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True)
class Hosts:
    """The names, in lower case and without ports, that may be in a Host header."""

    names: frozenset[str] = _LOOPBACK_NAMES
    any_address: bool = False
    """IP addresses too: no name, no rebinding."""

    @classmethod
    def listening(cls, address: str, public: Sequence[str] = ()) -> Hosts:
        """Those of a server that listens on an address or name, and which `public` names lead to."""
        names = {*_LOOPBACK_NAMES, *(name.lower().rstrip(".") for name in public)}
        if not _is_wildcard(address):
            return cls(frozenset({*names, address.lower()}))
        return cls(frozenset(names if public else {*names, socket.gethostname().lower()}), any_address=not public)

    def accepts(self, host: str, any_address: bool = False) -> bool:
        """Whether a Host header is one of them."""
        name = name_of(host)
        return name in self.names or ((self.any_address or any_address) and _is_address(name))


class HostsMiddleware:
    """Refuses foreign hosts (421) and, of requests that change something, foreign origins (403).

    Args:
        origins: pages that may send such requests, `https://page.example`.
        own_only: tells whether a path is closed to them too.
        probes: paths that are answered under IP addresses, whatever the hosts are.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Hosts,
        answer: Answer,
        origins: Sequence[str] = (),
        own_only: Callable[[str], bool] = lambda path: False,
        probes: Sequence[str] = (),
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._answer = answer
        self._origins = frozenset(origins)
        self._own_only = own_only
        self._probes = frozenset(probes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            refusal = self._foreign_host(scope["path"], headers) or self._foreign_origin(scope, headers)
            if refusal is not None:
                await self._answer(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _foreign_host(self, path: str, headers: dict[bytes, str]) -> RefusedError | None:
        host = headers.get(b"host", "")
        if self._hosts.accepts(host, any_address=path in self._probes):
            return None
        return RefusedError(
            HTTPStatus.MISDIRECTED_REQUEST,
            f"the Host {host!r} is not one that is served here; the operator adds it with --public-host",
            code="foreign_host",
        )

    def _foreign_origin(self, scope: Scope, headers: dict[bytes, str]) -> RefusedError | None:
        method = scope["method"]
        if method not in _CHANGING:
            return None
        origin = headers.get(b"origin")
        if origin in self._origins and not self._own_only(scope["path"]):
            return None
        # Browsers that send no Origin say this: it comes from this server's page, or its user typed the address.
        site = headers.get(b"sec-fetch-site", "none")
        if site in ("none", "same-origin") and (origin is None or _is_same(origin, headers[b"host"])):
            return None
        if site == "same-site" and origin is not None and _is_same(origin, headers[b"host"]):
            return None
        return RefusedError(
            HTTPStatus.FORBIDDEN,
            f"pages of the origin {origin or site!r} may not send {method} requests here",
            code="foreign_origin",
        )


def name_of(host: str) -> str:
    """The name in a Host header: without its port, brackets and last dot, in lower case; "" if it is none."""
    match = _HOST.fullmatch(host.strip().lower())
    return (match["address"] or match["name"].removesuffix(".")) if match else ""


def _is_same(origin: str, host: str) -> bool:
    """Whether an origin is this server under that Host; which scheme it was before a proxy, nobody knows."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    default = _DEFAULT_PORTS.get(parts.scheme)
    return default is not None and parts.netloc.lower().removesuffix(f":{default}") == host.lower().removesuffix(
        f":{default}"
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_wildcard(address: str) -> bool:
    return not address or (_is_address(address) and ipaddress.ip_address(address).is_unspecified)
