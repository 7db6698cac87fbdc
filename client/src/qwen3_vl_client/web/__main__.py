"""The command `qwen3-vl-web`: serves the page in the foreground until Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import uvicorn

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
    upload_quota_mib: Annotated[int, typer.Option(help="What one user may keep.")] = 20 * 1024,
    upload_capacity_mib: Annotated[int, typer.Option(help="What all users may keep together.")] = 200 * 1024,
    upload_expiry_hours: Annotated[float, typer.Option(help="How long an upload is kept.")] = 24.0,
    parts_in_flight: Annotated[
        int, typer.Option(help="Requests at the same time for a long video.")
    ] = SummaryOptions.in_flight,
) -> None:
    """Serves the page where videos are dropped and asked about."""
    try:
        settings = Settings(
            media_root=media_root,
            url=url,
            upload_quota_bytes=upload_quota_mib * 2**20,
            upload_capacity_bytes=upload_capacity_mib * 2**20,
            upload_expiry_seconds=upload_expiry_hours * 3600,
            parts_in_flight=parts_in_flight,
        )
        page = create_app(settings)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(f"page at http://{f'[{host}]' if ':' in host else host}:{port}")
    uvicorn.run(page, host=host, port=port, log_level="warning", timeout_graceful_shutdown=_GRACE_SECONDS)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
