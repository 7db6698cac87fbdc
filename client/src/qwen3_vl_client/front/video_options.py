"""The client library's video options as fields of a request: they are declared once, in `options.VideoOptions`."""

from __future__ import annotations

from typing import TypeVar, get_type_hints

from pydantic import BaseModel, create_model

from ..options import VideoOptions

Body = TypeVar("Body", bound=BaseModel)


def with_video_options(base: type[Body], *names: str) -> type[Body]:
    """`base` with a field for each video option, or for those of these names; the server checks their values."""
    hints = get_type_hints(VideoOptions)
    fields = {name: (hints[name], None) for name in names or hints}
    return create_model("VideoOptions", __base__=base, **fields)  # type: ignore[call-overload]
