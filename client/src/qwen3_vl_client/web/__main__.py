"""The command `qwen3-vl-web`: serves the page in the foreground until Ctrl-C."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..front import command
from ..front.connections import Bounds
from ..front.connections import serve as serve_app
from ..front.hosts import Hosts
from ..summaries import SummaryOptions
from .app import create_app
from .settings import Settings

# What runs when the page is told to end may take so long to end by itself.
_GRACE_SECONDS = 5

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    media_root: Annotated[Path, typer.Option(help="Triton's media root: uploads are kept below it.")],
    url: Annotated[
        str | None,
        typer.Option(envvar="QWEN3_VL_URL", metavar="HOST:PORT", help="Triton's gRPC port. [127.0.0.1:8001]"),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 7860,
    public_host: command.PublicHost = None,
    trusted_proxy: command.TrustedProxy = None,
    upload_quota_mib: Annotated[int, typer.Option(help="What one user may keep.")] = 20 * 1024,
    upload_capacity_mib: Annotated[int, typer.Option(help="What all users may keep together.")] = 200 * 1024,
    upload_expiry_hours: Annotated[float, typer.Option(help="How long an upload is kept.")] = 24.0,
    upload_max_files: Annotated[int, typer.Option(help="That one owner may keep.")] = 10_000,
    uploads_at_once: Annotated[int, typer.Option(help="Of one owner.")] = 8,
    upload_free_mib: Annotated[
        int | None, typer.Option(min=0, help="What uploads leave free on the disk. [1024, or 5 % of a small disk]")
    ] = None,
    parts_in_flight: Annotated[
        int, typer.Option(help="Requests at the same time for a long video.")
    ] = SummaryOptions.in_flight,
    requests_per_minute: Annotated[
        int, typer.Option(help="Of one user: uploads, deletions, looks, questions and summaries.")
    ] = 300,
    views_per_minute: Annotated[int, typer.Option(help="Pictures and contents of files of one user.")] = 1200,
    concurrent_requests: Annotated[int, typer.Option(help="Questions and summaries of one user at the same time.")] = 8,
    new_users_per_minute: Annotated[int, typer.Option(help="From one address.")] = 30,
    max_body_mib: Annotated[int, typer.Option(help="Of a question with its conversation.")] = 4,
    max_body_values: Annotated[int, typer.Option(help="Its commas, colons and opening brackets.")] = 50_000,
    max_held_mib: Annotated[int, typer.Option(help="Of the bodies of all requests that run.")] = 1024,
    share_cache: command.ShareCache = False,
    max_connections: command.MaxConnections = Bounds.connections,
    head_seconds: command.HeadSeconds = Bounds.head_seconds,
    body_seconds: command.BodySeconds = Bounds.body_seconds,
    reading_seconds: command.ReadingSeconds = Bounds.reading_seconds,
) -> None:
    """Serves the page where videos are dropped and asked about."""
    # What is written is nobody else's.
    os.umask(0o077)
    try:
        command.check_proxies(trusted_proxy or ())
        settings = Settings(
            media_root=media_root,
            url=url,
            upload_quota_bytes=upload_quota_mib * 2**20,
            upload_capacity_bytes=upload_capacity_mib * 2**20,
            upload_expiry_seconds=upload_expiry_hours * 3600,
            upload_max_files=upload_max_files,
            uploads_at_once=uploads_at_once,
            upload_free_bytes=None if upload_free_mib is None else upload_free_mib * 2**20,
            parts_in_flight=parts_in_flight,
            hosts=Hosts.listening(host, public_host or ()),
            share_cache=share_cache,
            requests_per_minute=requests_per_minute,
            views_per_minute=views_per_minute,
            concurrent_requests=concurrent_requests,
            new_users_per_minute=new_users_per_minute,
            max_body_bytes=max_body_mib * 2**20,
            max_body_values=max_body_values,
            max_held_bytes=max_held_mib * 2**20,
        )
        page = create_app(settings)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(f"page at {command.Listening(host, port).url}")
    bounds = command.bounds(max_connections, head_seconds, body_seconds, reading_seconds)
    serve_app(page, host, port, bounds, trusted_proxies=trusted_proxy or (), grace_seconds=_GRACE_SECONDS)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
