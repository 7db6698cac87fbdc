"""What the page sends: a conversation about its files, and how to answer. Checked here, by name and type."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_MAX_TEXT = 100_000
_MAX_ID = 256
_MAX_INTEGER = 2**31 - 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Turn(_Strict):
    """What one side said."""

    role: Literal["user", "assistant"]
    text: Annotated[str, Field(min_length=1, max_length=_MAX_TEXT)]


class Options(_Strict):
    """What is left out is the server's choice."""

    max_tokens: Annotated[int | None, Field(ge=1, le=_MAX_INTEGER)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    sampler: Literal["adaptive", "uniform"] | None = None
    fps: Annotated[float | None, Field(gt=0, le=60)] = None
    context_length: Annotated[int | None, Field(ge=1, le=_MAX_INTEGER)] = None

    def sampling(self) -> dict[str, Any]:
        return self._given("max_tokens", "temperature", "top_p")

    def video_options(self) -> dict[str, Any]:
        return self._given("sampler", "fps", "context_length")

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}


FileId = Annotated[str, Field(max_length=_MAX_ID)]


class Question(_Strict):
    """A conversation whose next turn is asked for; the files belong to its first turn."""

    files: Annotated[list[FileId], Field(max_length=32, fail_fast=True)] = []
    turns: Annotated[list[Turn], Field(min_length=1, max_length=200, fail_fast=True)]
    video_seconds: Annotated[float, Field(ge=0, le=1e7)] = 0.0
    """How long the video is: later times in the answer are none of its."""
    options: Options = Options()


class SummaryOrder(_Strict):
    """A video to be summarised part by part."""

    file: FileId
    subtitles: FileId | None = None
    about: Annotated[str, Field(max_length=_MAX_TEXT)] = ""
    language: Literal["English", "Chinese"] = "English"
    options: Options = Options()
