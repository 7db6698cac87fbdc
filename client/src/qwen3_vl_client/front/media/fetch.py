"""Fetches media over http(s) from the hosts that the operator allowed, and from nowhere else.

A host's name is resolved once, every address that it has must be public, and the connection goes to one of these very
addresses: a name that points into the operator's own network, or that changes its answer between check and use, leads
nowhere. Redirects are followed to allowed hosts only.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore2 as httpcore

from ...errors import InvalidRequest

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses that a host's name has now."""

_PORTS = {"http": 80, "https": 443}
_MAX_REDIRECTS = 3
# The special-purpose registries of IANA, and what was taken out of them: all of it, also what is said to be reachable,
# for a host of media has none of these addresses. Python's own list lags behind.
_SPECIAL_IPV4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carriers' NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocols
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# All unicast addresses that are given out: loopback, link-local, unique local, multicast, NAT64 and IPv4 in IPv6 lie
# elsewhere.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_SPECIAL_IPV6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocols; Teredo, whose addresses stand for IPv4 ones, among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: stands for an IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # what was the 6bone
        "3fff::/20",  # documentation
    )
)
# As it is: a medium that arrives compressed would be measured before it is unpacked.
_HEADERS = ((b"User-Agent", b"qwen3-vl-api"), (b"Accept", b"video/*, image/*"), (b"Accept-Encoding", b"identity"))


@dataclass(frozen=True)
class _Target:
    """A URL that may be asked for, in one reading for the check and for the request."""

    text: str
    url: httpcore.URL


class Fetcher:
    """Fetches from `allowed_hosts`: `host`, or `host:port` for another port than the scheme's. The bounds are those of
    one medium, redirects included; `resolve` and `network` are replaced by tests."""

    def __init__(
        self,
        allowed_hosts: Collection[str],
        *,
        max_bytes: int,
        max_seconds: float,
        resolve: Resolve | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._allowed = frozenset(host.lower() for host in allowed_hosts)
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._network = GuardedNetwork(resolve or _resolve, network or httpcore.AnyIOBackend())

    async def fetch(self, url: str, where: str, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Writes what is at `url`, piece by piece. Errors call the URL `where`.

        Raises:
            InvalidRequest: the URL is not accepted, or there is nothing, or it is too much or too slow.
        """
        target = self._check(url, where)
        try:
            async with (
                asyncio.timeout(self._max_seconds),
                httpcore.AsyncConnectionPool(network_backend=self._network) as pool,
            ):
                for _ in range(1 + _MAX_REDIRECTS):
                    location = await self._get(pool, target, where, write)
                    if location is None:
                        return
                    target = self._check(location, where, target.text)
        except TimeoutError:
            raise InvalidRequest(f"{where} could not be fetched within {self._max_seconds:g} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise InvalidRequest(f"{where} could not be fetched: {error or type(error).__name__}") from error
        raise InvalidRequest(f"{where} is redirected more than {_MAX_REDIRECTS} times")

    async def _get(
        self,
        pool: httpcore.AsyncConnectionPool,
        target: _Target,
        where: str,
        write: Callable[[bytes], Awaitable[None]],
    ) -> str | None:
        """Writes what is there; or tells where it is instead."""
        async with pool.stream("GET", target.url, headers=_HEADERS) as response:
            headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            if 300 <= response.status < 400 and b"location" in headers:
                return headers[b"location"]
            if response.status != 200:
                raise InvalidRequest(f"{where} could not be fetched: its host answered {response.status}")
            if headers.get(b"content-encoding", "identity") != "identity":
                raise InvalidRequest(f"{where} could not be fetched: its host sends it compressed")
            received = 0
            async for piece in response.aiter_stream():
                received += len(piece)
                if received > self._max_bytes:
                    raise InvalidRequest(f"{where} is larger than {self._max_bytes:,} bytes")
                await write(piece)
        return None

    def _check(self, url: str, where: str, base: str = "") -> _Target:
        try:
            url = urljoin(base, url)
            split = urlsplit(url)
            scheme, host, port = split.scheme, split.hostname or "", split.port
        except ValueError:
            raise InvalidRequest(f"{where} is not a URL") from None
        if scheme not in _PORTS or "@" in split.netloc:
            raise InvalidRequest(f"{where}: only http and https URLs without a user's name are accepted")
        port = port or _PORTS[scheme]
        name = host if port == _PORTS[scheme] else f"{host}:{port}"
        if name not in self._allowed:
            raise InvalidRequest(
                f"{where}: this server does not fetch from {name[:100]!r}; "
                + (f"accepted are {', '.join(sorted(self._allowed))}" if self._allowed else "it fetches from nowhere")
            )
        path = (split.path or "/") + (f"?{split.query}" if split.query else "")
        if not path.isascii() or not path.isprintable() or " " in path:
            raise InvalidRequest(f"{where} is not a URL: what is not ASCII must be percent-encoded")
        return _Target(url, httpcore.URL(scheme=scheme, host=host, port=port, target=path))


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only."""

    def __init__(self, resolve: Resolve, network: httpcore.AsyncNetworkBackend) -> None:
        self._resolve = resolve
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._resolve(host)
        if not addresses or not all(is_public(address) for address in addresses):
            raise httpcore.ConnectError(f"{host} is not a public host")
        # TLS goes on to check the certificate against the name.
        return await self._network.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


def is_public(address: str) -> bool:
    """Whether an IP address leads to the public internet and nowhere else."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in _SPECIAL_IPV4)
    if parsed.scope_id is not None or parsed not in _GLOBAL_UNICAST:
        return False
    return not any(parsed in network for network in _SPECIAL_IPV6)


async def _resolve(host: str) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]
