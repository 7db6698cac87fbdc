"""Bodies of requests that run, read within bounds once it is known who asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel

from .cookies import is_page
from .http.bodies import read_json
from .owners import CountedOwner, limits
from .services import Resources, Shared

Model = TypeVar("Model", bound=BaseModel)

_HINT = "upload large media to /v1/files and name them by id"


def json_body(model: type[Model]) -> Callable[..., Awaitable[Model]]:
    """A dependency that reads the body. FastAPI would read and parse it before the key is looked at."""

    async def read(request: Request, shared: Shared, owner: CountedOwner, resources: Resources) -> Model:
        on_page = is_page(request.scope["path"])
        settings = shared.settings
        # A request that waits for its body holds a place like one that waits for its answer.
        resources.enter_context(limits(request, shared).running(owner))
        return await read_json(
            request.stream(),
            request.headers,
            model,
            max_bytes=settings.page_max_body_bytes if on_page else settings.max_body_bytes,
            max_values=settings.max_body_values,
            holding=resources.enter_context(shared.bodies.holding(owner)),
            hint="" if on_page else _HINT,
        )

    return read
