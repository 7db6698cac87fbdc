"""The command `qwen3-vl`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..client import Client, Stream
from ..results import Answer, Progress, TextDelta
from . import commands, display
from .summarize import summarize

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def root() -> None:
    """Asks Qwen3-VL, served by Triton, about videos and images."""


@app.command(epilog=commands.EPILOG)
def ask(
    words: Annotated[
        list[str], typer.Argument(metavar="[VIDEO]... QUESTION", help="Videos to upload, then the question.")
    ],
    image: Annotated[list[Path] | None, typer.Option(help="An image to upload.")] = None,
    uri: Annotated[list[str] | None, typer.Option(help="A video that the server has, below its media root.")] = None,
    subtitles: Annotated[
        list[Path] | None, typer.Option(help="A video's lines (SRT, VTT, ASS), in the order of the videos.")
    ] = None,
    url: commands.Url = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of the answer at most.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 always takes the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from the likeliest tokens of this mass.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from so many of the likeliest tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled answer repeatable.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends the answer.")] = None,
    sampling: commands.Sampling = None,
    fps: Annotated[float | None, typer.Option(help="Frames to look at per second of video.")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Frames to look at, at most.")] = None,
    start: Annotated[float | None, typer.Option(help="Second of the video where looking begins.")] = None,
    end: Annotated[float | None, typer.Option(help="Second of the video where looking ends.")] = None,
    option: commands.Option = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: the answer or the error.")] = False,
    stream: Annotated[bool, typer.Option(help="Print the answer as it is written.")] = True,
    progress: Annotated[bool, typer.Option(help="Show on a terminal what the server is doing.")] = True,
    timeout: commands.TimeoutSeconds = None,
    header: commands.Header = None,
    tls: commands.Encrypt = False,
    root_certificates: commands.RootCertificates = None,
    private_key: commands.PrivateKey = None,
    certificate_chain: commands.CertificateChain = None,
) -> None:
    """Asks one question about videos and images.

    qwen3-vl ask clip.mp4 "What happens, and when?"
    """
    *videos, question = words
    sampling_parameters = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": seed,
        "stop": stop or None,
        **commands.pairs("--sampling", sampling),
    }
    video_options = {
        "fps": fps,
        "max_frames": max_frames,
        "start": start,
        "end": end,
        **commands.pairs("--option", option),
    }
    with commands.usage_errors():
        client = Client(
            **commands.connection(url, timeout, header, tls, root_certificates, private_key, certificate_chain)
        )
    with (
        commands.failures(as_json=as_json),
        client,
        client.stream(
            list(videos),
            question,
            image=image,
            uri=uri,
            subtitles=subtitles,
            sampling=sampling_parameters,
            video_options=video_options,
        ) as answering,
    ):
        answer = _follow(answering, show_progress=progress and sys.stderr.isatty(), print_text=stream and not as_json)
    if as_json:
        print(json.dumps(asdict(answer), ensure_ascii=False))
        return
    if not stream:
        print(answer.text)
    display.say(display.timings(answer), "dim")


app.command(epilog=commands.EPILOG)(summarize)


def _follow(answering: Stream, *, show_progress: bool, print_text: bool) -> Answer:
    """Shows progress until the answer begins, then prints the answer as it comes, if it is wanted so."""
    pieces = 0
    with display.Display(enabled=show_progress) as line:
        for event in answering:
            if isinstance(event, Progress):
                line.show(event)
            elif isinstance(event, TextDelta):
                pieces += 1
                if print_text:
                    line.clear()
                    print(event.text, end="", flush=True)
                else:
                    line.generating(pieces)
    if print_text:
        print()
    return answering.result()


def main() -> None:
    """The console script."""
    app()
