"""Answers operators: is it healthy, how is it doing."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel

from ..errors import documented
from ..metrics import CONTENT_TYPE
from ..services import Shared

router = APIRouter()


class Health(BaseModel):
    """The engine's state: sessions that hold memory, and sessions that wait for some."""

    status: Literal["ok"] = "ok"
    sessions: int
    waiting: int


@router.get(
    "/health",
    responses=documented(HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT),
)
async def health(shared: Shared) -> Health:
    """200 while the model really answers, asked just now."""
    state = await shared.probe.state()
    return Health(sessions=state.sessions, waiting=state.waiting)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(shared: Shared) -> Response:
    """In Prometheus' format."""
    return Response(shared.metrics.page(), media_type=CONTENT_TYPE)
