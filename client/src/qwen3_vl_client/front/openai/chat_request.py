"""The body of a chat completion: OpenAI's fields, those that vLLM's clients add, and `video_options`.

What does not change the answer is accepted and ignored; what would change it and cannot be done is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from ..media.frame_list import FrameTimes, count_frames, is_frame_list
from ..settings import LongVideo
from .models import ModelName
from .video_kwargs import MediaIoKwargs, MmProcessorKwargs, VideoOptions, frame_times, merged_video_options

_MAX_INTEGER = 2**31 - 1
_MAX_MESSAGES = _MAX_PARTS = 4096
# As many as the server takes.
_MAX_STOPS = 64
_MAX_STOP_TOKENS = 1024
_MAX_CHOICES = 4096


class _Body(BaseModel):
    """JSON as it is: nothing is converted, unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class TextPart(_Body):
    type: Literal["text"]
    text: str


class ImageUrl(_Body):
    url: str
    """A data URI, the id of an uploaded file, a path below the media root, or an http(s) URL of an allowed host."""
    detail: Literal["auto", "low", "high"] | None = None
    """Ignored: an image is seen in the detail that the checkpoint's processor gives it."""


class VideoUrl(_Body):
    url: str
    """As of an image; or its frames as JPEG files, `data:video/jpeg;base64,FRAME,FRAME,…`."""
    subtitles: str | None = None
    """Likewise, a file with the video's lines: SRT, WebVTT or ASS."""


class ImagePart(_Body):
    type: Literal["image_url"]
    image_url: ImageUrl
    uuid: str | None = None
    """vLLM's name for its cache; ignored: contents are recognised by themselves."""


class VideoPart(_Body):
    type: Literal["video_url"]
    video_url: VideoUrl
    uuid: str | None = None


def _is_text(content: Any) -> str:
    return "text" if isinstance(content, str) else "parts"


Part = Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]
Text = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[TextPart], Field(min_length=1, max_length=_MAX_PARTS, fail_fast=True), Tag("parts")],
    Discriminator(_is_text),
]
Content = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[Part], Field(min_length=1, max_length=_MAX_PARTS, fail_fast=True), Tag("parts")],
    Discriminator(_is_text),
]
Stop = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[str], Field(max_length=_MAX_STOPS, fail_fast=True), Tag("texts")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "texts"),
]
Nothing = Annotated[list[Any], Field(max_length=0)] | None


def _of_type(expected: type) -> BeforeValidator:
    """Python's 0, 0.0 and False are equal; JSON's are not."""

    def check(value: Any) -> Any:
        if type(value) is not expected:
            raise ValueError(f"a value of the type {expected.__name__} is accepted")
        return value

    return BeforeValidator(check)


Zero = Annotated[Literal[0], _of_type(int)]
One = Annotated[Literal[1], _of_type(int)]
No = Annotated[Literal[False], _of_type(bool)]
Yes = Annotated[Literal[True], _of_type(bool)]


class SystemMessage(_Body):
    """Accepted as the first message."""

    role: Literal["system", "developer"]
    content: Text
    name: str | None = None


class UserMessage(_Body):
    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(_Body):
    """An answer as it was given; with no tool to call, its other fields hold nothing."""

    role: Literal["assistant"]
    content: Text
    name: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Nothing = None
    annotations: Nothing = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class StreamOptions(_Body):
    include_usage: bool | None = None
    """A last chunk without choices tells the usage."""
    include_obfuscation: bool | None = None
    """Ignored."""


class PlainText(_Body):
    type: Literal["text"]


class JsonObject(_Body):
    type: Literal["json_object"]


class JsonSchema(_Body):
    name: str
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(_Body):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[PlainText | JsonObject | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(_Body):
    """vLLM's way to ask for a form: one of these."""

    json_: dict[str, Any] | None = Field(default=None, alias="json")
    json_object: Yes | None = None
    regex: str | None = None
    choice: Annotated[list[str], Field(min_length=1, max_length=_MAX_CHOICES, fail_fast=True)] | None = None

    @model_validator(mode="after")
    def _one(self) -> StructuredOutputs:
        if sum(getattr(self, name) is not None for name in type(self).model_fields) != 1:
            raise ValueError("one of json, json_object, regex and choice is accepted")
        return self

    def response_format(self) -> dict[str, Any]:
        """The same in the server's words."""
        if self.json_ is not None:
            return {"type": "json_schema", "json_schema": {"schema": self.json_}}
        if self.choice is not None:
            return {"type": "regex", "regex": "|".join(map(re.escape, self.choice))}
        return {"type": "json_object"} if self.regex is None else {"type": "regex", "regex": self.regex}


class ChatRequest(_Body):
    """A field that is null counts as not given."""

    model: ModelName
    messages: Annotated[list[Message], Field(min_length=1, max_length=_MAX_MESSAGES, fail_fast=True)]

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1, le=_MAX_INTEGER)
    max_tokens: int | None = Field(default=None, ge=1, le=_MAX_INTEGER)
    """The older name of `max_completion_tokens`, which wins."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stop: Stop | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    response_format: ResponseFormat | None = None

    # As vLLM has them.
    top_k: int | None = Field(default=None, ge=-1, le=_MAX_INTEGER)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=10)
    min_tokens: int | None = Field(default=None, ge=0, le=_MAX_INTEGER)
    stop_token_ids: Annotated[list[int], Field(max_length=_MAX_STOP_TOKENS, fail_fast=True)] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    mm_processor_kwargs: MmProcessorKwargs | None = None
    media_io_kwargs: MediaIoKwargs | None = None

    video_options: VideoOptions | None = None
    """Which frames are looked at, and how closely, in the server's own words; they win over vLLM's."""
    long_video: LongVideo | None = None
    """Whether videos are read part by part first: `auto`, where the context has no room for them; `always`; `never`."""

    # Accepted as far as they ask for nothing else than what is done.
    n: One | None = None
    logprobs: No | None = None
    top_logprobs: Zero | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=16, fail_fast=True)] | None = None
    tools: Nothing = None
    functions: Nothing = None
    tool_choice: Literal["none", "auto"] | None = None
    reasoning_effort: Literal["none"] | None = None
    echo: No | None = None
    add_generation_prompt: Yes | None = None
    continue_final_message: No | None = None
    add_special_tokens: No | None = None
    include_stop_str_in_output: No | None = None
    use_beam_search: No | None = None
    chat_template_kwargs: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    # Ignored: they change no answer.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    parallel_tool_calls: bool | None = None
    prediction: dict[str, Any] | None = None
    request_id: str | None = None
    priority: int | None = None
    spaces_between_special_tokens: bool | None = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream is to tell its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling_parameters(self) -> dict[str, Any]:
        """The server's `sampling_parameters`."""
        same = (
            "temperature",
            "top_p",
            "seed",
            "stop",
            "presence_penalty",
            "frequency_penalty",
            "top_k",
            "min_p",
            "repetition_penalty",
            "min_tokens",
            "stop_token_ids",
            "ignore_eos",
            "skip_special_tokens",
        )
        parameters = {name: value for name in same if (value := getattr(self, name)) is not None}
        if (max_tokens := self.max_completion_tokens or self.max_tokens) is not None:
            parameters["max_tokens"] = max_tokens
        if self.structured_outputs is not None:
            parameters["response_format"] = self.structured_outputs.response_format()
        if self.response_format is not None:
            parameters["response_format"] = self.response_format.model_dump(by_alias=True, exclude_none=True)
        return parameters

    def server_video_options(self) -> dict[str, Any]:
        """The server's `video_options`."""
        videos = [part.video_url.url for part in self._parts() if isinstance(part, VideoPart)]
        listed = [count_frames(url) for url in videos if is_frame_list(url)]
        return merged_video_options(
            self.media_io_kwargs,
            self.mm_processor_kwargs,
            self.video_options,
            listed if len(listed) == len(videos) else (),
        )

    def frame_times(self) -> FrameTimes:
        """When the frames of videos are shown that come as lists of frames."""
        return frame_times(self.media_io_kwargs, self.mm_processor_kwargs)

    def _parts(self) -> Iterator[TextPart | ImagePart | VideoPart]:
        for message in self.messages:
            if not isinstance(message.content, str):
                yield from message.content
