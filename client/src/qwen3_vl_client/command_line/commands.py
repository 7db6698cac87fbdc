"""The commands' common part: options that say where the server is, and how a failed request ends a command."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import Cancelled, InvalidRequest, NotFound, Qwen3VLError, ResourceExhausted, ServerUnavailable, Timeout
from ..options import Timeouts, Tls
from . import display

Url = Annotated[
    str | None,
    typer.Option(envvar="QWEN3_VL_URL", metavar="HOST:PORT", help="The server's gRPC port. [127.0.0.1:8001]"),
]
TimeoutSeconds = Annotated[float | None, typer.Option(metavar="SECONDS", help="From start to end. [3600]")]
Header = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Sent with the request.")]
Encrypt = Annotated[bool, typer.Option("--tls", help="Encrypt; trust the system's certificates.")]
RootCertificates = Annotated[Path | None, typer.Option(help="Encrypt; trust these certificates (PEM).")]
PrivateKey = Annotated[Path | None, typer.Option(help="This client's own key (PEM).")]
CertificateChain = Annotated[Path | None, typer.Option(help="This client's own certificates (PEM).")]
Sampling = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="Any other sampling parameter of the server.")
]
Option = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Any other video option of the server.")]

_EXIT_CODES: dict[type[Qwen3VLError], int] = {
    InvalidRequest: 2,
    NotFound: 2,
    ServerUnavailable: 3,
    ResourceExhausted: 3,
    Timeout: 4,
    Cancelled: 1,
}
_INTERRUPTED = 130
EPILOG = (
    "Exit codes: 0 answered; 1 the server failed; 2 wrong usage or an invalid request; 3 the server is unavailable or "
    "full; 4 a timeout; 130 stopped by Ctrl-C, which also stops the request at the server."
)


def connection(
    url: str | None,
    timeout: float | None,
    header: list[str] | None,
    tls: bool,
    root_certificates: Path | None,
    private_key: Path | None,
    certificate_chain: Path | None,
) -> dict[str, Any]:
    """The arguments of `Client` and `AsyncClient`."""
    encrypted = tls or root_certificates or private_key or certificate_chain
    return {
        "url": url,
        "tls": Tls(root_certificates, private_key, certificate_chain) if encrypted else None,
        "headers": {key: str(value) for key, value in pairs("--header", header, parse=False).items()},
        "timeouts": Timeouts() if timeout is None else Timeouts(total=timeout),
    }


@contextmanager
def usage_errors() -> Iterator[None]:
    """Values that cannot be used are wrong usage of the command."""
    try:
        yield
    except Qwen3VLError:
        raise
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error


@contextmanager
def failures(*, as_json: bool) -> Iterator[None]:
    """Says why a request failed or that it was stopped, and exits with its code."""
    try:
        yield
    except Qwen3VLError as error:
        _report(error, as_json=as_json)
        raise typer.Exit(_EXIT_CODES.get(type(error), 1)) from error
    except KeyboardInterrupt:
        display.say("stopped")
        raise typer.Exit(_INTERRUPTED) from None


def pairs(flag: str, given: Iterable[str] | None, *, parse: bool = True) -> Mapping[str, Any]:
    """`key=value` each; a value that reads as JSON is taken as that."""
    values: dict[str, Any] = {}
    for pair in given or ():
        key, separator, value = pair.partition("=")
        if not key or not separator:
            raise typer.BadParameter(f"{flag} {pair!r}; KEY=VALUE is accepted")
        try:
            values[key] = json.loads(value) if parse else value
        except ValueError:
            values[key] = value
    return values


def _report(error: Qwen3VLError, *, as_json: bool) -> None:
    if as_json:
        described = {"code": error.code, "message": error.message, "request_id": error.request_id}
        print(json.dumps({"error": described}, ensure_ascii=False))
    else:
        display.say(f"{error.code}: {error}", "red")
