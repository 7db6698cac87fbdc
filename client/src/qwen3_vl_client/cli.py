"""The command `qwen3-vl`."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from . import display
from .client import Client, Stream
from .errors import Cancelled, InvalidRequest, NotFound, Qwen3VLError, ResourceExhausted, ServerUnavailable, Timeout
from .options import Timeouts, Tls
from .results import Answer, Progress, TextDelta

_EXIT_CODES: dict[type[Qwen3VLError], int] = {
    InvalidRequest: 2,
    NotFound: 2,
    ServerUnavailable: 3,
    ResourceExhausted: 3,
    Timeout: 4,
    Cancelled: 1,
}
_INTERRUPTED = 130
_EPILOG = (
    "Exit codes: 0 answered; 1 the server failed; 2 wrong usage or an invalid request; 3 the server is unavailable or "
    "full; 4 a timeout; 130 stopped by Ctrl-C, which also stops the request at the server."
)

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def root() -> None:
    """Asks Qwen3-VL, served by Triton, about videos and images."""


@app.command(epilog=_EPILOG)
def ask(
    words: Annotated[
        list[str], typer.Argument(metavar="[VIDEO]... QUESTION", help="Videos to upload, then the question.")
    ],
    image: Annotated[list[Path] | None, typer.Option(help="An image to upload.")] = None,
    uri: Annotated[list[str] | None, typer.Option(help="A video that the server has, below its media root.")] = None,
    url: Annotated[
        str | None,
        typer.Option(envvar="QWEN3_VL_URL", metavar="HOST:PORT", help="The server's gRPC port. [127.0.0.1:8001]"),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of the answer at most.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 always takes the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from the likeliest tokens of this mass.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from so many of the likeliest tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled answer repeatable.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends the answer.")] = None,
    sampling: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Any other sampling parameter of the server.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames to look at per second of video.")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Frames to look at, at most.")] = None,
    start: Annotated[float | None, typer.Option(help="Second of the video where looking begins.")] = None,
    end: Annotated[float | None, typer.Option(help="Second of the video where looking ends.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Any other video option of the server.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: the answer or the error.")] = False,
    stream: Annotated[bool, typer.Option(help="Print the answer as it is written.")] = True,
    progress: Annotated[bool, typer.Option(help="Show on a terminal what the server is doing.")] = True,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="From start to end. [3600]")] = None,
    header: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Sent with the request.")] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt; trust the system's certificates.")] = False,
    root_certificates: Annotated[Path | None, typer.Option(help="Encrypt; trust these certificates (PEM).")] = None,
    private_key: Annotated[Path | None, typer.Option(help="This client's own key (PEM).")] = None,
    certificate_chain: Annotated[Path | None, typer.Option(help="This client's own certificates (PEM).")] = None,
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
        **_pairs("--sampling", sampling),
    }
    video_options = {
        "fps": fps,
        "max_frames": max_frames,
        "start": start,
        "end": end,
        **_pairs("--option", option),
    }
    encrypted = tls or root_certificates or private_key or certificate_chain
    try:
        client = Client(
            url,
            tls=Tls(root_certificates, private_key, certificate_chain) if encrypted else None,
            headers={key: str(value) for key, value in _pairs("--header", header, parse=False).items()},
            timeouts=Timeouts() if timeout is None else Timeouts(total=timeout),
        )
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    try:
        with (
            client,
            client.stream(
                list(videos), question, image=image, uri=uri, sampling=sampling_parameters, video_options=video_options
            ) as answering,
        ):
            answer = _follow(
                answering, show_progress=progress and sys.stderr.isatty(), print_text=stream and not as_json
            )
    except Qwen3VLError as error:
        _report(error, as_json=as_json)
        raise typer.Exit(_EXIT_CODES.get(type(error), 1)) from error
    except KeyboardInterrupt:
        display.say("stopped")
        raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        print(json.dumps(asdict(answer), ensure_ascii=False))
        return
    if not stream:
        print(answer.text)
    display.say(display.timings(answer), "dim")


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


def _report(error: Qwen3VLError, *, as_json: bool) -> None:
    if as_json:
        described = {"code": error.code, "message": error.message, "request_id": error.request_id}
        print(json.dumps({"error": described}, ensure_ascii=False))
    else:
        display.say(f"{error.code}: {error}", "red")


def _pairs(flag: str, pairs: Iterable[str] | None, *, parse: bool = True) -> dict[str, Any]:
    """`key=value` each; a value that reads as JSON is taken as that."""
    values: dict[str, Any] = {}
    for pair in pairs or ():
        key, separator, value = pair.partition("=")
        if not key or not separator:
            raise typer.BadParameter(f"{flag} {pair!r}; KEY=VALUE is accepted")
        try:
            values[key] = json.loads(value) if parse else value
        except ValueError:
            values[key] = value
    return values


def main() -> None:
    """The console script."""
    app()
