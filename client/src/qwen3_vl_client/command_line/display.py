"""Shows progress on stderr while the command line waits, and a line of timings at the end."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from .. import results
from ..results import Answer

_LABELS = {"sampling": "choosing frames", "waiting": "waiting for memory", "prefill": "reading"}


class Display:
    """One line that is gone when the answer begins: a bar when there is a count of tokens to show, else a spinner."""

    def __init__(self, *, enabled: bool) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not enabled,
        )
        self._task = self._progress.add_task("connecting", total=None, count="")

    def show(self, event: results.Progress) -> None:
        """A phase before the answer."""
        if event.phase == "upload":
            size = f"{event.upload_bytes / 1e6:.1f} MB" if event.upload_bytes >= 50_000 else ""
            self._progress.update(self._task, description="uploading", count=size)
        else:
            read, total = event.prefilled_tokens, event.prompt_tokens
            count = f"{read:,} of {total:,} tokens" if total else ""
            self._progress.update(
                self._task,
                description=_LABELS.get(event.phase, event.phase),
                total=total or None,
                completed=read,
                count=count,
            )

    def generating(self, pieces: int) -> None:
        """The answer is being written, but shown at its end."""
        self._progress.update(self._task, description="answering", total=None, count=f"{pieces:,} pieces")

    def counting(self, description: str, done: int, total: int) -> None:
        """How many of several things are done."""
        self._progress.update(
            self._task, description=description, total=total, completed=done, count=f"{done} of {total}"
        )

    def tell(self, text: str) -> None:
        """A line that stays, above the one that shows how far it is."""
        if not self._progress.disable:
            self._progress.console.print(Text(text), soft_wrap=True)

    def clear(self) -> None:
        """Takes the line away."""
        self._progress.stop()

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()


def say(text: str, style: str = "") -> None:
    """A line on stderr; colours only where they are understood."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(text, style))


def timings(answer: Answer) -> str:
    """`12 tokens in 1.9 s (stop), first after 1.1 s | prompt 123 tokens, 96 of video | preprocess: decode 0.4 s`"""
    usage, measured = answer.usage, answer.timings
    first = "" if measured.first_text is None else f", first after {measured.first_text:.2f} s"
    cached = f", {usage.cached_tokens:,} cached" if usage.cached_tokens else ""
    parts = [
        f"{usage.completion_tokens:,} tokens in {measured.total:.2f} s ({answer.finish_reason}){first}",
        f"prompt {usage.prompt_tokens:,} tokens, {usage.video_tokens:,} of video{cached}",
    ]
    # The undotted `total` and `first_token` are left out: the client's own, above, are what the user met.
    stages: dict[str, list[str]] = {}
    for name, seconds in (usage.seconds or {}).items():
        stage, dot, step = name.partition(".")
        if dot:
            stages.setdefault(stage, []).append(f"{step.replace('_', ' ')} {seconds:.2f} s")
    parts += [f"{stage}: {', '.join(steps)}" for stage, steps in stages.items()]
    return " | ".join(parts)
