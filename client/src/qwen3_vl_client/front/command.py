"""The options that both commands have, of how they are served."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from .connections import Bounds

PublicHost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A name in the URLs that lead here; several may be given. Others are refused, but those of loopback. "
        "[if it listens on all addresses: any IP address, and this machine's name]",
    ),
]
TrustedProxy = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ADDRESS",
        help="A proxy, or a network of proxies, whose X-Forwarded-For and X-Forwarded-Proto are believed; several may "
        "be given.",
    ),
]
ShareCache = Annotated[
    bool,
    typer.Option(
        "--share-cache",
        help="Let requests profit from what the server remembers of other owners' requests. Who asks cleverly can then "
        "find out what others asked.",
    ),
]
MaxConnections = Annotated[int, typer.Option(min=1, help="Connections at the same time.")]
HeadSeconds = Annotated[float, typer.Option(min=0.1, help="How long a request's head may take.")]
BodySeconds = Annotated[float, typer.Option(min=0.1, help="How far a body may be behind 16 KiB per second.")]
ReadingSeconds = Annotated[
    float, typer.Option(min=0.1, help="How far a client may be behind reading 4 KiB per second of its answer.")
]


@dataclass(frozen=True)
class Listening:
    """Where a command listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """As it is written."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine's users comes there."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def bounds(max_connections: int, head_seconds: float, body_seconds: float, reading_seconds: float) -> Bounds:
    """What the options above say."""
    return Bounds(
        connections=max_connections,
        head_seconds=head_seconds,
        body_seconds=body_seconds,
        reading_seconds=reading_seconds,
    )


def check_proxies(proxies: Sequence[str]) -> None:
    """Raises ValueError for what is neither an address nor a network."""
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            raise ValueError(
                f"the trusted proxy {proxy!r} is no address; an IP address or a network, like 10.0.0.0/8, is accepted"
            ) from None
