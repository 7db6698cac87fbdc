"""`/v1/models`: the names under which the one model that is served answers."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ..errors import documented
from ..http.refusals import RefusedError
from ..owners import Owner
from ..services import Services, Shared

router = APIRouter(prefix="/v1/models")

_STARTED = int(time.time())
_MODEL_OWNER = "qwen3-vl-triton"


ModelName = Annotated[str, Field(max_length=256)]
"""In the body of a request."""


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = _STARTED
    owned_by: str = _MODEL_OWNER


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


@router.get("", responses=documented(HTTPStatus.UNAUTHORIZED))
async def list_models(shared: Shared, owner: Owner) -> Models:
    """All of them; the first is the model's own."""
    return Models(data=[Model(id=name) for name in shared.settings.models])


@router.get("/{model:path}", responses=documented(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND))
async def retrieve_model(model: str, shared: Shared, owner: Owner) -> Model:
    """One of them."""
    check_model(model, shared)
    return Model(id=model)


def check_model(model: str, shared: Services) -> None:
    """Raises `RefusedError`, 404, for a model that is not served."""
    names = shared.settings.models
    if model not in names:
        raise RefusedError(
            HTTPStatus.NOT_FOUND,
            f"the model {model!r} is not served here; {', '.join(map(repr, names))} is",
            code="model_not_found",
            param="model",
        )
