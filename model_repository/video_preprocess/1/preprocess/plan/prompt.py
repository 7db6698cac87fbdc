"""The prompt: the checkpoint's chat template, timestamps, one pad token per visual token, and positions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from transformers import AutoTokenizer

from preprocess.errors import InvalidArgumentError
from preprocess.media.attachment import Kind
from preprocess.media.subtitles import Line
from preprocess.plan.positions import VisualRun, mrope_positions
from preprocess.plan.tokens import Tokens
from preprocess.request.messages import Message, Text
from preprocess.settings import TokenIds
from preprocess.turns import Turns
from preprocess.workers.heap import return_free_memory


@dataclass(frozen=True)
class PromptMedium:
    """A video or an image as the prompt shows it: the times of its temporal patches, and their size in tokens."""

    kind: Kind
    rows: int
    columns: int
    timestamps: tuple[float, ...] = ()
    """Seconds, one per temporal patch; none for an image, which is one temporal patch."""
    lines: tuple[Line, ...] = ()
    """The lines that stand among the temporal patches, in order."""


@dataclass(frozen=True, eq=False)
class Prompt:
    token_ids: npt.NDArray[np.int32]
    """[tokens], pads expanded."""
    positions: npt.NDArray[np.int32]
    """[3, tokens]: time, row, column."""
    next_position: int
    """The position of the first generated token."""
    runs: tuple[VisualRun, ...]
    """The temporal patches of all media, in order."""

    @property
    def visual_tokens(self) -> int:
        return sum(run.tokens for run in self.runs)


class PromptWriter:
    """Writes prompts with the tokenizer and the chat template of a checkpoint. Safe to call from several threads."""

    def __init__(self, checkpoint: Path, token_ids: TokenIds) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        self._template = _chat_template(checkpoint)
        self._pads: dict[int, Kind] = {token_ids.image_pad: "image", token_ids.video_pad: "video"}
        names = self._tokenizer.convert_ids_to_tokens
        self._pad_names: dict[str, Kind] = dict(zip(names(list(self._pads)), self._pads.values(), strict=True))
        self._video_frame = "".join(names([token_ids.vision_start, token_ids.video_pad, token_ids.vision_end]))
        self._control_tokens = [t.content for t in self._tokenizer.added_tokens_decoder.values() if t.special]
        self._control_token = re.compile("|".join(map(re.escape, self._control_tokens)))
        # Called directly, it works for several threads at once: transformers would change its settings in each call.
        encoder = self._tokenizer.backend_tokenizer
        encoder.no_truncation()
        encoder.no_padding()
        added = self._tokenizer.added_tokens_decoder.values()
        self._tokens = Tokens(encoder, longest_added=max(len(token.content) for token in added))
        self._turns = Turns()

    def check_text(self, messages: Sequence[Message]) -> None:
        """Raises InvalidArgumentError if a text contains one of the tokens that give a prompt its structure."""
        for index, message in enumerate(messages):
            # The template writes the parts of a message one behind the other: together they must not spell one either.
            text = "".join(part.text for part in message.parts if isinstance(part, Text))
            for token in self._control_tokens:
                if token in text:
                    raise InvalidArgumentError(
                        f"the text of message {index} contains the control token {token}; text without it is accepted"
                    )

    def check_length(
        self, messages: Sequence[Message], context_length: int, owner: str, interrupt: Callable[[], None]
    ) -> None:
        """Raises InvalidArgumentError if a long text alone has more tokens than the context; counts no more of them.

        The long texts of an owner are counted one after the other. Calls `interrupt` now and then.
        """
        text = self._render(messages)
        if not self._tokens.is_long(text):
            return
        with self._turns.of(owner, interrupt):
            try:
                tokens = 0
                for ids in self._tokens.pieces(text):
                    interrupt()
                    tokens += len(ids)
                    if tokens > context_length:
                        raise InvalidArgumentError(
                            f"the prompt has more than {context_length} tokens, of text alone;"
                            f" fewer than the context length of {context_length} are accepted"
                        )
            finally:
                return_free_memory()

    def write(self, messages: Sequence[Message], media: Sequence[PromptMedium]) -> Prompt:
        """The prompt of a conversation whose attachments are, in order, `media`.

        The text before expansion has one pad per temporal patch and is tokenized once; the reference expands first and
        tokenizes everything: the ids are the same, because pads are tokens of their own.
        """
        text = self._render(messages)
        shown = iter(media)
        pattern = "|".join(map(re.escape, self._pad_names))
        written = [self._pad_names[pad] for pad in re.findall(pattern, text)]
        if written != [medium.kind for medium in media]:
            raise InvalidArgumentError(
                f"the chat template writes {len(written)} videos and images for {len(media)} attached, or reorders them"
            )
        text = re.sub(pattern, lambda pad: self._placeholder(pad.group(), next(shown)), text)
        compact = np.fromiter(chain.from_iterable(self._tokens.pieces(text)), np.int32)
        return _expand(compact, list(self._pads), media)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._tokens.count(texts)

    def timestamp_text(self, seconds: float) -> str:
        """The text that stands in the prompt for a temporal patch, its visual tokens written as one pad."""
        return f"<{seconds:.1f} seconds>{self._video_frame}"

    def line_text(self, line: Line) -> str:
        """The text that stands in the prompt for a line; a control token in it, which would be obeyed, is a blank."""
        return f"<{line.start:.1f} seconds>{line.label}: {self._control_token.sub(' ', line.text)}\n"

    def _placeholder(self, pad: str, medium: PromptMedium) -> str:
        if medium.kind == "image":
            return pad
        # Sorting keeps the order of what has the same time: a line comes before the patch that is shown as it starts.
        words = [(line.start, self.line_text(line)) for line in medium.lines]
        shown = [(seconds, self.timestamp_text(seconds)) for seconds in medium.timestamps]
        return "".join(text for _, text in sorted(words + shown, key=itemgetter(0)))

    def _render(self, messages: Sequence[Message]) -> str:
        conversation = [{"role": message.role, "content": _content(message)} for message in messages]
        try:
            return self._tokenizer.apply_chat_template(
                conversation, chat_template=self._template, tokenize=False, add_generation_prompt=True
            )
        except jinja2.TemplateError as error:
            raise InvalidArgumentError(f"the checkpoint's chat template refuses the messages: {error}") from error


def _content(message: Message) -> str | list[dict[str, Any]]:
    if len(message.parts) == 1 and isinstance(message.parts[0], Text):
        return message.parts[0].text
    return [
        {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": part.kind} for part in message.parts
    ]


def _chat_template(checkpoint: Path) -> str | None:
    """The template in a file of its own, which goes before the tokenizer's; None: the tokenizer's."""
    jinja, old = checkpoint / "chat_template.jinja", checkpoint / "chat_template.json"
    if jinja.exists():
        return jinja.read_text(encoding="utf-8")
    if old.exists():
        return json.loads(old.read_text(encoding="utf-8"))["chat_template"]
    return None


def _expand(compact: npt.NDArray[np.int32], pads: list[int], media: Sequence[PromptMedium]) -> Prompt:
    sizes = [(m.rows, m.columns) for m in media for _ in range(max(len(m.timestamps), 1))]
    is_pad = np.isin(compact, pads)
    repeats = np.ones(len(compact), np.int64)
    repeats[is_pad] = [rows * columns for rows, columns in sizes]
    starts = (np.cumsum(repeats) - repeats)[is_pad]
    runs = tuple(VisualRun(int(start), *size) for start, size in zip(starts, sizes, strict=True))
    token_ids = np.repeat(compact, repeats)
    positions, next_position = mrope_positions(len(token_ids), runs)
    return Prompt(token_ids, positions, next_position, runs)
