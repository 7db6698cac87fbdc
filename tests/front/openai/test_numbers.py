"""Numbers at the edges of what computers hold: the server behind the API says what it accepts, and nothing breaks."""

from __future__ import annotations

import math
from typing import Any

import httpx2
import pytest

NUMBERS = [0, -1, 1e-308, 5e-324, 1e308, -1e308, 2**31, 2**63, 2**64, 10**400, 0.5, math.pi]
VIDEO = {"type": "video_url", "video_url": {"url": "clips/clip.mp4"}}
BODY = {"model": "test-model", "messages": [{"role": "user", "content": [VIDEO]}], "max_tokens": 1}
FIELDS: list[dict[str, Any]] = [
    *({name: ...} for name in ("temperature", "top_p", "top_k", "min_p", "seed", "min_tokens")),
    *({name: ...} for name in ("presence_penalty", "frequency_penalty", "repetition_penalty")),
    {"stop_token_ids": [...]},
    *({"mm_processor_kwargs": {name: ...}} for name in ("fps", "num_frames", "min_frames", "max_frames")),
    *({"mm_processor_kwargs": {name: ...}} for name in ("max_pixels", "min_pixels", "total_pixels")),
    *({"media_io_kwargs": {"video": {name: ...}}} for name in ("fps", "num_frames", "total_num_frames", "duration")),
    *({"video_options": {name: ...}} for name in ("fps", "start", "end", "min_frames", "max_frames")),
    *({"video_options": {name: ...}} for name in ("max_tokens_per_frame", "max_video_tokens", "context_length")),
]


def put(field: Any, number: float) -> Any:
    if isinstance(field, dict):
        return {name: put(value, number) for name, value in field.items()}
    return [put(value, number) for value in field] if isinstance(field, list) else number


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_no_number_breaks_anything(api: str, field: dict[str, Any]) -> None:
    with httpx2.Client(base_url=api, headers={"authorization": "Bearer key-of-ann"}, timeout=60) as http:
        for number in NUMBERS:
            response = http.post("/v1/chat/completions", json={**BODY, **put(field, number)})
            assert response.status_code in (200, 400), (number, response.text)
