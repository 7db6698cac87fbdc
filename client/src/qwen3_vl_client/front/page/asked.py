"""The bodies that the page sends: a conversation about its files, and how to answer. Names and types are checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..video_options import with_video_options

_MAX_TEXT = 100_000
_MAX_ID = 256
_MAX_INTEGER = 2**31 - 1
_SAMPLING = {"max_tokens", "temperature", "top_p"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Turn(_Strict):
    """One side's words."""

    role: Literal["user", "assistant"]
    text: Annotated[str, Field(min_length=1, max_length=_MAX_TEXT)]


class Options(with_video_options(_Strict, "sampler", "fps", "context_length")):  # type: ignore[misc]
    """An option that is left out is the server's choice."""

    max_tokens: Annotated[int | None, Field(ge=1, le=_MAX_INTEGER)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None

    def sampling(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True, include=_SAMPLING)

    def video_options(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True, exclude=_SAMPLING)


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
