"""The command `qwen3-vl summarize`."""

from __future__ import annotations

import asyncio
import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..aio import AsyncClient
from ..summaries.formats import FORMATS, clock
from ..summaries.summarizing import SummaryOptions
from ..summaries.summary import Cut, Merged, PartDone, Summary
from . import commands, display

Format = Enum("Format", {name: name for name in FORMATS})  # type: ignore[misc]


def summarize(
    video: Annotated[Path | None, typer.Argument(help="The video to upload.")] = None,
    uri: Annotated[str | None, typer.Option(help="Instead: a video that the server has, below its media root.")] = None,
    subtitles: Annotated[Path | None, typer.Option(help="A file with its lines: SRT, VTT, ASS.")] = None,
    form: Annotated[Format, typer.Option("--format", help="SRT and WebVTT have the chapters.")] = Format["markdown"],
    about: Annotated[str, typer.Option(help="What matters most.")] = "",
    language: Annotated[str, typer.Option(help="Of titles and texts.")] = "English",
    part_seconds: Annotated[float, typer.Option(help="Length of a part at most.")] = 300.0,
    max_parts: Annotated[int, typer.Option(help="A video that has more parts is refused.")] = SummaryOptions.max_parts,
    in_flight: Annotated[
        int, typer.Option(help="Parts that are asked about at the same time.")
    ] = SummaryOptions.in_flight,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of an answer at most.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed, the same summary.")] = 0,
    sampling: commands.Sampling = None,
    option: commands.Option = None,
    resume: Annotated[bool, typer.Option(help="Go on where an interrupted summary stopped.")] = True,
    progress: Annotated[
        bool, typer.Option(help="Show on a terminal which parts are done, with their chapters.")
    ] = True,
    url: commands.Url = None,
    timeout: commands.TimeoutSeconds = None,
    header: commands.Header = None,
    tls: commands.Encrypt = False,
    root_certificates: commands.RootCertificates = None,
    private_key: commands.PrivateKey = None,
    certificate_chain: commands.CertificateChain = None,
) -> None:
    """Summarises a video of any length, with chapters.

    qwen3-vl summarize lecture.mp4 --format markdown > lecture.md
    """
    with commands.usage_errors():
        options = SummaryOptions(
            about=about,
            language=language,
            part_seconds=part_seconds,
            max_parts=max_parts,
            in_flight=in_flight,
            sampling={"max_tokens": max_tokens, "seed": seed, **commands.pairs("--sampling", sampling)},
            video_options=commands.pairs("--option", option),
            journal=_journals() if resume else None,
        )
        client = AsyncClient(
            **commands.connection(url, timeout, header, tls, root_certificates, private_key, certificate_chain)
        )
    with commands.failures(as_json=form is Format["json"]):
        made = asyncio.run(
            _follow(client, video, uri, subtitles, options, show_progress=progress and sys.stderr.isatty())
        )
    print(FORMATS[form.value](made), end="")


async def _follow(
    client: AsyncClient,
    video: Path | None,
    uri: str | None,
    subtitles: Path | None,
    options: SummaryOptions,
    *,
    show_progress: bool,
) -> Summary:
    parts, done = 0, 0
    async with client:
        with display.Display(enabled=show_progress) as line:
            async for event in client.summarize(video, uri=uri, subtitles=subtitles, options=options):
                if isinstance(event, Cut):
                    parts = len(event.parts)
                elif isinstance(event, PartDone):
                    done += 1
                    for chapter in event.chapters:
                        line.tell(f"{clock(chapter.start)} {chapter.title}")
                    line.counting("describing parts", done, parts)
                elif isinstance(event, Merged):
                    line.counting("merging", event.done, event.total)
                else:
                    made = event
    return made


def _journals() -> Path:
    """Where interrupted summaries wait, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qwen3-vl" / "summaries"
