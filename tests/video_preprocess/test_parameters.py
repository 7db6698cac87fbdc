"""The parameters of config.pbtxt: what is refused at the start, by name, and what an empty one means."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from preprocess import parameters
from preprocess.parameters import Parameters
from preprocess.workers.worker import WorkerLimits

DELIVERED = dict(
    re.findall(
        r'key: "(\w+)" value: \{ string_value: "([^"]*)" \}',
        (Path(parameters.__file__).parents[2] / "config.pbtxt").read_text(),
    )
)


def test_the_delivered_configuration_is_what_the_code_has_as_its_defaults() -> None:
    read = Parameters.from_config(DELIVERED, Path("/version"))
    assert read == Parameters(
        checkpoint=Path("/version/checkpoint"),
        media_root=None,
        credits_directory=read.credits_directory,
        context_length=None,
        chunk_tokens=1024,
        heartbeat_seconds=1.0,
        max_requests=256,
        max_attachments=256,
        max_frame_pixels=1 << 26,
        cache_directory=read.cache_directory,
        cache_bytes=4 << 30,
        worker_limits=WorkerLimits(),
    )
    assert read.cache_directory.name == f"qwen3_vl_cache_{os.getuid()}"


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("max_requests", "0", "an integer of at least 1"),
        ("max_requests", "many", "an integer of at least 1"),
        ("chunk_tokens", "-5", "an integer of at least 1"),
        ("chunk_tokens", "1e3", "an integer of at least 1"),
        ("workers", "0", "an integer of at least 1"),
        ("workers", "-1", "an integer of at least 1"),
        ("max_workers", "0", "an integer of at least 1"),
        ("worker_image_cpu_seconds", "0", "an integer of at least 1"),
        ("max_request_pixels", "0", "an integer of at least 1"),
        ("max_decoding_bytes", "0", "an integer of at least 1"),
        ("max_bytes_in_flight", "none", "an integer of at least 1"),
        ("max_text_bytes", "9" * 5000, "an integer of at least 1"),
        ("context_length", "0", "an integer of at least 1"),
        ("cache_bytes", "-1", "an integer of at least 0"),
        ("heartbeat_seconds", "nan", "a number of seconds above 0"),
        ("heartbeat_seconds", "0", "a number of seconds above 0"),
        ("worker_stall_seconds", "inf", "a number of seconds above 0"),
        ("max_video_seconds", "a day", "a number of seconds above 0"),
        ("checkpoint", " ", "a value"),
        ("worker_task_cpu_seconds", "", "a value"),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: str, accepted: str) -> None:
    with pytest.raises(ValueError, match=f"^parameter {name} is .*; {accepted} is (accepted|needed)$"):
        Parameters.from_config({**DELIVERED, name: value}, Path("/version"))


def test_an_old_name_is_taken_and_the_new_one_is_said(caplog: pytest.LogCaptureFixture) -> None:
    read = Parameters.from_config({**DELIVERED, "memory_directory": "/old", "memory_bytes": "0"}, Path("/version"))
    assert (read.cache_directory, read.cache_bytes) == (Path("/old"), 0)
    assert [record.message for record in caplog.records] == [
        f"parameter {old} is now called {new}; the old name is taken for one more release"
        for old, new in (("memory_directory", "cache_directory"), ("memory_bytes", "cache_bytes"))
    ]
    with pytest.raises(ValueError, match="parameter cache_bytes is 'none'; an integer of at least 0 is accepted"):
        Parameters.from_config({**DELIVERED, "memory_bytes": "none"}, Path("/version"))
