"""The parts of figures: trends, the knee, Triton's counters, perf_analyzer's profiles."""

import base64
import json
import random
from pathlib import Path

import pytest

from perf.load.readings.knee import knee
from perf.load.readings.metrics import parse_blocks_held, parse_counters, parse_decoded_tokens
from perf.load.readings.trend import trend
from perf.load.sweep import stage_means
from perf.load.traffic.analyzer import AnalyzerError, binary, percentiles, read_profile


def noisy(growth_per_request: float, count: int = 400) -> list[float]:
    rng = random.Random(0)
    return [100 + growth_per_request * number + rng.gauss(0, 0.5) for number in range(count)]


def test_noise_is_no_growth() -> None:
    found = trend(range(400), noisy(0))
    assert found.low < 0 < found.high
    assert found.distinguishable == 0


def test_growth_is_told_in_percent_per_thousand_requests() -> None:
    found = trend(range(400), noisy(0.02))
    # 20 per 1,000 requests, of a median of 104.
    assert found.distinguishable == pytest.approx(100 * 20 / 104, rel=0.1)
    assert found.low < found.percent < found.high


def test_one_outlier_is_no_growth() -> None:
    values = noisy(0)
    values[-1] = 10_000
    assert trend(range(400), values).distinguishable == 0


def test_a_trend_needs_samples() -> None:
    with pytest.raises(ValueError, match="3 samples; 20"):
        trend([1, 2, 3], [1, 2, 3])


def test_the_knee_is_before_latency_doubles() -> None:
    assert knee([(4, 5.0), (1, 1.0), (2, 1.4), (3, 1.9)]) == 3
    # A dip later does not bring it back.
    assert knee([(1, 1.0), (2, 3.0), (3, 1.5)]) == 1
    assert knee([(1, 1.0), (2, 1.1)]) == 2
    assert knee([]) is None


def test_blocks_that_are_only_kept_are_not_held() -> None:
    kept = 'qwen3_vl_kv_blocks{model="decoder",state="cached",version="1"} 70\n'
    held = 'qwen3_vl_kv_blocks{model="decoder",state="reserved",version="1"} 12\n'
    assert parse_blocks_held("# TYPE qwen3_vl_kv_blocks gauge\n" + kept + held) == 12
    with pytest.raises(ValueError, match="no qwen3_vl_kv_blocks"):
        parse_blocks_held(kept)


def test_tokens_of_answers_are_told_from_those_of_prompts() -> None:
    prompts = 'qwen3_vl_tokens_total{model="decoder",phase="prefill"} 900\n'
    answers = 'qwen3_vl_tokens_total{model="decoder",phase="decode"} 42\n'
    assert parse_decoded_tokens(prompts + answers) == 42


def test_counters_are_added_up_over_reasons_and_subtracted() -> None:
    before = parse_counters('nv_inference_request_success{model="qwen3_vl",version="1"} 5\n')
    after = parse_counters(
        "# HELP nv_inference_request_success whatever\n"
        'nv_inference_request_success{model="qwen3_vl",version="1"} 15\n'
        'nv_inference_request_success{model="decoder",version="1"} 70\n'
        'nv_inference_request_failure{model="qwen3_vl",reason="BACKEND",version="1"} 2\n'
        'nv_inference_request_failure{model="qwen3_vl",reason="OTHER",version="1"} 1\n'
        'nv_inference_request_duration_us{model="qwen3_vl",version="1"} 2e+06\n'
        "nv_cpu_utilization 0.5\n"
    )
    counted = after - before
    assert counted.succeeded() == 10
    assert counted.succeeded("decoder") == 70
    assert counted.failed() == 3
    assert counted.mean_seconds() == pytest.approx(0.2)


def profile_file(path: Path, responses: list[list[int]]) -> Path:
    """A profile of requests that were sent one second apart; `responses`: milliseconds after each was sent."""
    usage = json.dumps({"completion_tokens": 2, "seconds": {"total": 1.0, "decoder": {"prefill": 0.5}}})
    requests = [
        {
            "timestamp": number * 10**9,
            "request_inputs": {"video": "@"},
            "response_timestamps": [number * 10**9 + time * 10**6 for time in times],
            "response_outputs": [{"text_output": "a", "usage": ""} for _ in times[1:]]
            + [{"text_output": "b", "usage": usage}],
        }
        for number, times in enumerate(responses)
    ]
    text = json.dumps({"experiments": [{"requests": requests}]})
    # As perf_analyzer does: the bytes of a video, unescaped.
    path.write_bytes(text.encode().replace(b"@", b"\x00\xe9\xff\n"))
    return path


def test_a_profile_is_read_with_bytes_that_are_no_text(tmp_path: Path) -> None:
    profile = read_profile(profile_file(tmp_path / "p.json", [[100, 150, 300], [200, 400]]))
    assert profile.first == pytest.approx([0.1, 0.2])
    assert profile.total == pytest.approx([0.3, 0.4])
    assert profile.gaps == pytest.approx([0.05, 0.15, 0.2])
    assert profile.seconds == pytest.approx(1.4)
    assert profile.offered_per_second == pytest.approx(1)
    assert profile.requests_per_second == pytest.approx(2 / 1.4)
    assert [usage["completion_tokens"] for usage in profile.usages] == [2, 2]
    assert profile.errors == 0


def test_an_empty_last_response_is_no_part_of_the_answer(tmp_path: Path) -> None:
    file = profile_file(tmp_path / "p.json", [[100, 150]])
    document = json.loads(file.read_text(errors="replace"), strict=False)
    (request,) = document["experiments"][0]["requests"]
    request["response_timestamps"].append(10**9)
    request["response_outputs"].append({"text_output": "", "usage": ""})
    file.write_text(json.dumps(document))
    profile = read_profile(file)
    assert profile.total == pytest.approx([0.15])
    assert len(profile.usages) == 1


def test_requests_without_a_response_are_errors(tmp_path: Path) -> None:
    assert read_profile(profile_file(tmp_path / "p.json", [[100], [], [100]])).errors == 1
    with pytest.raises(AnalyzerError, match="2 requests and no response"):
        read_profile(profile_file(tmp_path / "p.json", [[], []]))


def test_binary_tensors_have_tritons_encoding() -> None:
    assert base64.b64decode(binary(b"abc")["b64"]) == b"\x03\x00\x00\x00abc"


def test_percentiles() -> None:
    assert percentiles(range(101)) == {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
    assert percentiles([]) == {}


def test_stage_means_count_what_is_absent_as_nothing() -> None:
    seconds = [{"total": 2.0, "decoder": {"prefill": 1.0}, "encode": {"busy": 0.5}}, {"decoder": {"prefill": 2.0}}]
    assert stage_means(seconds) == {"decoder.prefill": 1.5, "encode.busy": 0.25}
