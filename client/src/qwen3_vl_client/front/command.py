"""The command `qwen3-vl-front`: serves the API and the page in the foreground until Ctrl-C."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import Tls
from .app import create_app
from .http.connections import Bounds
from .http.hosts import Hosts
from .http.serving import serve as serve_app
from .keys import read_keys
from .settings import LongVideo, Settings

# Requests that run when the application is told to end may take so long to end by themselves.
_GRACE_SECONDS = 5
_MIB = 2**20
_HOUR_SECONDS = 3600

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    media_root: Annotated[
        Path, typer.Option(help="Triton's media root: paths are looked up in it, uploads are kept below it.")
    ],
    url: Annotated[
        str | None,
        typer.Option(envvar="QWEN3_VL_URL", metavar="HOST:PORT", help="Triton's gRPC port. [127.0.0.1:8001]"),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8080,
    api: Annotated[bool, typer.Option(help="Serve the API at /v1.")] = Settings.api,
    page: Annotated[
        bool | None,
        typer.Option("--page/--no-page", help="Serve the page at /. It asks for no key. [unless --api-keys are given]"),
    ] = Settings.page,
    model: Annotated[
        list[str] | None, typer.Option(help="A name that requests may ask for; several may be given. [qwen3-vl]")
    ] = None,
    api_keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An owner and a key per line; without it, everybody is served."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST[:PORT]", help="A host that media may be fetched from; several may be given."),
    ] = None,
    public_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name in the URLs that lead here; several may be given. Others are refused, but those of loopback. "
            "[if it listens on all addresses: any IP address, and this machine's name]",
        ),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="A proxy, or a network of proxies, whose X-Forwarded-For and X-Forwarded-Proto are believed; several "
            "may be given.",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="A page's origin that may call the API; several may be given."),
    ] = None,
    share_cache: Annotated[
        bool,
        typer.Option(
            "--share-cache",
            help="Let requests profit from what the server remembers of other owners' requests. Who asks cleverly can "
            "then find out what others asked.",
        ),
    ] = Settings.share_cache,
    long_video: Annotated[
        LongVideo, typer.Option(help="When chats that do not say read videos part by part: if the context has no room.")
    ] = Settings.long_video,
    max_body_mib: Annotated[
        int, typer.Option(help="Of a request to the API with its data URIs.")
    ] = Settings.max_body_bytes // _MIB,
    page_max_body_mib: Annotated[
        int, typer.Option(help="Of a question on the page with its conversation.")
    ] = Settings.page_max_body_bytes // _MIB,
    max_body_values: Annotated[
        int, typer.Option(help="Commas, colons and opening brackets of a request.")
    ] = Settings.max_body_values,
    max_held_mib: Annotated[int, typer.Option(help="Of the bodies of all requests that run.")] = Settings.max_held_bytes
    // _MIB,
    max_fetch_mib: Annotated[int, typer.Option(help="Of a medium that is fetched.")] = Settings.max_fetch_bytes // _MIB,
    max_fetch_seconds: Annotated[float, typer.Option(help="How long that may take.")] = Settings.max_fetch_seconds,
    upload_quota_mib: Annotated[int, typer.Option(help="What one owner may keep.")] = Settings.upload_quota_bytes
    // _MIB,
    upload_capacity_mib: Annotated[
        int, typer.Option(help="What all owners may keep together.")
    ] = Settings.upload_capacity_bytes // _MIB,
    upload_expiry_hours: Annotated[
        float, typer.Option(help="How long an upload is kept.")
    ] = Settings.upload_expiry_seconds / _HOUR_SECONDS,
    upload_max_files: Annotated[int, typer.Option(help="That one owner may keep.")] = Settings.upload_max_files,
    uploads_at_once: Annotated[int, typer.Option(help="Of one owner.")] = Settings.uploads_at_once,
    upload_free_mib: Annotated[
        int | None, typer.Option(min=0, help="What uploads leave free on the disk. [1024, or 5 % of a small disk]")
    ] = None,
    parts_in_flight: Annotated[
        int, typer.Option(help="Requests of one owner at the same time about parts of long videos.")
    ] = Settings.parts_in_flight,
    requests_per_minute: Annotated[int, typer.Option(help="Of one owner, at the API.")] = Settings.requests_per_minute,
    page_requests_per_minute: Annotated[
        int, typer.Option(help="Of one user of the page: uploads, deletions, looks, questions and summaries.")
    ] = Settings.page_requests_per_minute,
    views_per_minute: Annotated[
        int, typer.Option(help="Pictures and contents of files of one user of the page.")
    ] = Settings.views_per_minute,
    concurrent_requests: Annotated[
        int, typer.Option(help="Chat completions and summaries of one owner at the same time.")
    ] = Settings.concurrent_requests,
    page_concurrent_requests: Annotated[
        int, typer.Option(help="Questions and summaries of one user of the page at the same time.")
    ] = Settings.page_concurrent_requests,
    wrong_keys_per_minute: Annotated[int, typer.Option(help="From one address.")] = Settings.wrong_keys_per_minute,
    new_users_per_minute: Annotated[
        int, typer.Option(help="New users of the page from one address.")
    ] = Settings.new_users_per_minute,
    max_connections: Annotated[int, typer.Option(min=1, help="Connections at the same time.")] = Bounds.connections,
    head_seconds: Annotated[
        float, typer.Option(min=0.1, help="How long a request's head may take.")
    ] = Bounds.head_seconds,
    body_seconds: Annotated[
        float, typer.Option(min=0.1, help="How far a body may be behind 16 KiB per second.")
    ] = Bounds.body_seconds,
    reading_seconds: Annotated[
        float, typer.Option(min=0.1, help="How far a client may be behind reading 4 KiB per second of its answer.")
    ] = Bounds.reading_seconds,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection to Triton.")] = False,
    root_certificates: Annotated[Path | None, typer.Option(help="Encrypt it; trust these certificates (PEM).")] = None,
) -> None:
    """Serves an OpenAI-compatible API and the page where videos are dropped and asked about, in front of Triton."""
    given = dict(locals())
    # Nobody else may read what is written.
    os.umask(0o077)
    try:
        _check_proxies(trusted_proxy or ())
        settings = Settings(
            **_bounds(given),
            media_root=media_root,
            url=url,
            tls=Tls(root_certificates) if tls or root_certificates else None,
            api=api,
            page=page,
            models=tuple(model or Settings.models),
            api_keys={} if api_keys is None else read_keys(api_keys),
            allowed_hosts=frozenset(allowed_host or ()),
            cors_origins=tuple(cors_origin or ()),
            hosts=Hosts.listening(host, public_host or ()),
            share_cache=share_cache,
            long_video=long_video,
        )
        front = create_app(settings)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    _tell(settings, host, port)
    bounds = Bounds(
        connections=max_connections,
        head_seconds=head_seconds,
        body_seconds=body_seconds,
        reading_seconds=reading_seconds,
    )
    serve_app(front, host, port, bounds, trusted_proxies=trusted_proxy or (), grace_seconds=_GRACE_SECONDS)


def _bounds(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are numbers, by their names and in the units of `Settings`."""
    names = {field.name for field in fields(Settings)}
    bounds: dict[str, Any] = {}
    for name, value in given.items():
        stem, _, unit = name.rpartition("_")
        if value is None or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if unit == "mib":
            bounds[f"{stem}_bytes"] = value * _MIB
        elif unit == "hours":
            bounds[f"{stem}_seconds"] = value * _HOUR_SECONDS
        elif name in names:
            bounds[name] = value
    return bounds


def _check_proxies(proxies: Sequence[str]) -> None:
    """Raises ValueError for what is neither an address nor a network."""
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            raise ValueError(
                f"the trusted proxy {proxy!r} is no address; an IP address or a network, like 10.0.0.0/8, is accepted"
            ) from None


def _tell(settings: Settings, host: str, port: int) -> None:
    """Says what is served where, and which doors are open."""
    if not settings.api_keys and not _is_loopback(host):
        typer.echo(f"warning: {host} is reachable by others, and without --api-keys everybody is served", err=True)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if settings.api:
        typer.echo(f"API at {url}/v1, described at /openapi.json; models: {', '.join(settings.models)}")
    if settings.serves_page:
        typer.echo(f"page at {url}")
        if settings.api_keys:
            typer.echo("warning: the page asks for no key: whoever reaches it may ask", err=True)
    elif settings.page is None:
        typer.echo("the page is not served, for it asks for no key; --page serves it beside --api-keys", err=True)


def _is_loopback(host: str) -> bool:
    """Whether only this machine's users come there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
