"""The command `qwen3-vl-api`: serves the API in the foreground until Ctrl-C."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..front import command
from ..front.connections import Bounds
from ..front.connections import serve as serve_app
from ..front.hosts import Hosts
from ..options import Tls
from .app import create_app
from .keys import read_keys
from .long_videos import LongVideo
from .settings import Settings

# What runs when the API is told to end may take so long to end by itself.
_GRACE_SECONDS = 3

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
    public_host: command.PublicHost = None,
    trusted_proxy: command.TrustedProxy = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="A page's origin that may call; several may be given.")
    ] = None,
    long_video: Annotated[
        LongVideo, typer.Option(help="When chats that do not say read videos part by part: if the context has no room.")
    ] = "auto",
    max_body_mib: Annotated[int, typer.Option(help="Of a chat request with its data URIs.")] = 256,
    max_body_values: Annotated[int, typer.Option(help="Commas, colons and opening brackets of a request.")] = 50_000,
    max_held_mib: Annotated[int, typer.Option(help="Of the bodies of all requests that run.")] = 1024,
    max_fetch_mib: Annotated[int, typer.Option(help="Of a medium that is fetched.")] = 2048,
    max_fetch_seconds: Annotated[float, typer.Option(help="How long that may take.")] = 60.0,
    upload_quota_mib: Annotated[int, typer.Option(help="What one owner may keep.")] = 20 * 1024,
    upload_capacity_mib: Annotated[int, typer.Option(help="What all owners may keep together.")] = 200 * 1024,
    upload_expiry_hours: Annotated[float, typer.Option(help="How long an upload is kept.")] = 24.0,
    upload_max_files: Annotated[int, typer.Option(help="That one owner may keep.")] = 10_000,
    uploads_at_once: Annotated[int, typer.Option(help="Of one owner.")] = 8,
    upload_free_mib: Annotated[
        int | None, typer.Option(min=0, help="What uploads leave free on the disk. [1024, or 5 % of a small disk]")
    ] = None,
    requests_per_minute: Annotated[int, typer.Option(help="Of one owner.")] = 600,
    concurrent_requests: Annotated[int, typer.Option(help="Chat completions of one owner at the same time.")] = 64,
    wrong_keys_per_minute: Annotated[int, typer.Option(help="From one address.")] = 60,
    share_cache: command.ShareCache = False,
    max_connections: command.MaxConnections = Bounds.connections,
    head_seconds: command.HeadSeconds = Bounds.head_seconds,
    body_seconds: command.BodySeconds = Bounds.body_seconds,
    reading_seconds: command.ReadingSeconds = Bounds.reading_seconds,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection to Triton.")] = False,
    root_certificates: Annotated[Path | None, typer.Option(help="Encrypt it; trust these certificates (PEM).")] = None,
) -> None:
    """Serves an OpenAI-compatible API in front of Triton."""
    # What is written is nobody else's.
    os.umask(0o077)
    listening = command.Listening(host, port)
    try:
        command.check_proxies(trusted_proxy or ())
        settings = Settings(
            media_root=media_root,
            url=url,
            tls=Tls(root_certificates) if tls or root_certificates else None,
            models=tuple(model or ("qwen3-vl",)),
            api_keys={} if api_keys is None else read_keys(api_keys),
            allowed_hosts=frozenset(allowed_host or ()),
            cors_origins=tuple(cors_origin or ()),
            hosts=Hosts.listening(host, public_host or ()),
            share_cache=share_cache,
            long_video=long_video,
            max_body_bytes=max_body_mib * 2**20,
            max_body_values=max_body_values,
            max_held_bytes=max_held_mib * 2**20,
            max_fetch_bytes=max_fetch_mib * 2**20,
            max_fetch_seconds=max_fetch_seconds,
            upload_quota_bytes=upload_quota_mib * 2**20,
            upload_capacity_bytes=upload_capacity_mib * 2**20,
            upload_expiry_seconds=upload_expiry_hours * 3600,
            upload_max_files=upload_max_files,
            uploads_at_once=uploads_at_once,
            upload_free_bytes=None if upload_free_mib is None else upload_free_mib * 2**20,
            requests_per_minute=requests_per_minute,
            concurrent_requests=concurrent_requests,
            wrong_keys_per_minute=wrong_keys_per_minute,
        )
        api = create_app(settings)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    if not settings.api_keys and not listening.is_loopback:
        typer.echo(f"warning: {host} is reachable by others, and without --api-keys everybody is served", err=True)
    typer.echo(
        f"API at {listening.url}/v1, described at /openapi.json; models: {', '.join(settings.models)}",
    )
    bounds = command.bounds(max_connections, head_seconds, body_seconds, reading_seconds)
    serve_app(api, host, port, bounds, trusted_proxies=trusted_proxy or (), grace_seconds=_GRACE_SECONDS)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
