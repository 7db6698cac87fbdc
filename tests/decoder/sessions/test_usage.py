"""Where a request's seconds went."""

from __future__ import annotations

from sessions.usage import Timeline


def test_each_phase_has_its_seconds() -> None:
    timeline = Timeline(
        started=10.0,
        planned=11.0,
        admitted=13.0,
        first_token=17.0,
        encode_busy=2.0,
        encode_waited=0.5,
        preprocess={"plan": 1.0, "decode": 2.5, "waited": 3.0},
    )
    assert timeline.seconds(25.0) == {
        "total": 15.0,
        "first_token": 7.0,
        "preprocess": {"plan": 1.0, "decode": 2.5, "waited": 3.0},
        "encode": {"busy": 2.0, "waited": 0.5},
        "decoder": {"waited_for_blocks": 2.0, "prefill": 4.0, "generate": 8.0},
    }


def test_what_did_not_happen_is_left_out() -> None:
    assert Timeline(started=10.0).seconds(12.0) == {"total": 2.0}
    waiting = Timeline(started=10.0, planned=11.0)
    assert waiting.seconds(14.0) == {"total": 4.0, "decoder": {"waited_for_blocks": 3.0}}
    prefilling = Timeline(started=10.0, planned=11.0, admitted=12.0)
    assert prefilling.seconds(14.0)["decoder"] == {"waited_for_blocks": 1.0, "prefill": 2.0}
