import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from build.gpu.planner.models import find_model, published_sizes
from build.gpu.planner.planning import Fit, Refusal, find_fit, max_context, video_seconds
from build.gpu.planner.profiles import find_profile, profiles
from build.gpu.planner.report import describe, precision_table, table
from build.gpu.planner.vision_profiles import bands

PAGE = Path(__file__).parents[4] / "build" / "GPU.md"
COMBINATIONS = list(itertools.product(profiles(), published_sizes()))


@pytest.mark.parametrize(("gpu", "size"), COMBINATIONS)
def test_every_profile_and_size_has_an_answer(gpu: str, size: str) -> None:
    profile, model = find_profile(gpu), find_model(size)
    fit = find_fit(profile, model)
    assert describe(fit)
    if isinstance(fit, Fit):
        assert fit.free_bytes >= 0
        assert fit.max_concurrency >= fit.concurrency
        assert fit.max_context_tokens >= fit.context_tokens
        assert fit.reasons
    else:
        assert fit.needed_bytes > profile.memory_bytes


@pytest.mark.parametrize(("gpu", "size"), COMBINATIONS)
def test_what_a_plan_calls_the_longest_is_the_longest(gpu: str, size: str) -> None:
    profile, model = find_profile(gpu), find_model(size)
    fit = find_fit(profile, model)
    if isinstance(fit, Refusal):
        return
    wish = {"weights": fit.weights, "kv_cache": fit.kv_cache, "concurrency": 1}
    longest = fit.max_context_tokens
    assert isinstance(find_fit(profile, model, context_tokens=longest, **wish), Fit)
    if longest < model.max_positions:
        assert isinstance(find_fit(profile, model, context_tokens=longest + 1024, **wish), Refusal)


def test_the_whole_context_of_the_4b_model_does_not_fit_24_gb_even_with_the_smallest_settings() -> None:
    refusal = find_fit(find_profile("rtx4090d"), find_model("4B"), context_tokens=262_144)
    assert isinstance(refusal, Refusal)
    assert any(alternative.startswith("H100 80 GB, fp8 weights") for alternative in refusal.alternatives)
    assert any(
        alternative.startswith("int4_awq weights with a fp8 KV cache: 1 x") for alternative in refusal.alternatives
    )
    other = "this card with the engine pytorch, int4 weights with a int8 KV cache: 1 x 215,040 tokens"
    assert other in refusal.alternatives


@pytest.mark.parametrize(("gpu", "size"), [pair for pair in COMBINATIONS if pair[0] != "cpu"])
def test_the_pytorch_engine_holds_more_of_a_video_on_the_same_card(gpu: str, size: str) -> None:
    """It takes features chunk by chunk; TensorRT-LLM has all of a prompt's on the GPU at once."""
    model, profiles_ = find_model(size), (find_profile(gpu), find_profile(gpu).with_engine("pytorch"))
    fits = [find_fit(profile, model, context_tokens=16_384, weights="bf16", kv_cache="bf16") for profile in profiles_]
    if all(isinstance(fit, Fit) for fit in fits):
        usual, pytorch = fits
        assert pytorch.max_context_tokens >= usual.max_context_tokens  # type: ignore[union-attr]
        assert {part.name for part in pytorch.parts} == {part.name for part in usual.parts}  # type: ignore[union-attr]


def test_an_engine_that_a_profile_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"engine 'tensorrt_llm' does not exist on CPU.*; accepted are pytorch"):
        find_profile("cpu").with_engine("tensorrt_llm")
    with pytest.raises(ValueError, match="engine 'vllm' does not exist on H100 80 GB; accepted are tensorrt_llm, pyto"):
        find_profile("h100").with_engine("vllm")


def test_smaller_settings_are_chosen_only_where_needed() -> None:
    profile, model = find_profile("rtx4090d"), find_model("8B")
    short = find_fit(profile, model, context_tokens=16_384)
    longer = find_fit(profile, model, context_tokens=max_context(profile, model, "int4_awq", "fp8", 1))
    assert isinstance(short, Fit)
    assert isinstance(longer, Fit)
    assert (short.weights, longer.weights) == ("fp8", "int4_awq")
    assert any("fp8 weights" in reason and reason.startswith("too large") for reason in longer.reasons)


def test_precisions_that_a_card_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"KV cache in fp8 do not exist on A100 80 GB \(sm_80\); accepted are bf16"):
        find_fit(find_profile("a100-80gb"), find_model("4B"), kv_cache="fp8")


@pytest.mark.parametrize(
    ("wish", "message"), [({"context_tokens": 10}, "context is 10"), ({"concurrency": 0}, "concurrency is 0")]
)
def test_senseless_wishes_are_refused(wish: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_fit(find_profile("h100"), find_model("2B"), **wish)


def test_video_of_a_context() -> None:
    assert video_seconds(1024 + 3600 * 76) == 3600
    assert video_seconds(0) == 0


@pytest.mark.parametrize(
    ("chunk_tokens", "frame_tokens"), {(p.chunk_tokens, p.max_frame_tokens) for p in profiles().values()}
)
def test_every_chunk_lies_in_a_band(chunk_tokens: int, frame_tokens: int) -> None:
    """Any size of frame up to the largest, as many frames as a chunk has at most, and the chunk without pictures."""
    boxes = bands(chunk_tokens=chunk_tokens, max_frame_tokens=frame_tokens)
    chunks = [(max(1, chunk_tokens // tokens), tokens * 4) for tokens in range(1, frame_tokens + 1)]
    for frames, patches in [(0, 4), (1, 4), *chunks, *[(1, patches) for _, patches in chunks]]:
        assert any(
            box.min_frames <= frames <= box.max_frames and box.min_patches <= patches <= box.max_patches
            for box in boxes
        ), (frames, patches)


def test_bands_stay_near_a_chunk_s_size() -> None:
    for box in bands(chunk_tokens=1024, max_frame_tokens=1024):
        assert box.max_frames * box.max_patches <= 8 * 4096
        assert box.min_frames <= box.opt_frames <= box.max_frames
        assert box.min_patches <= box.opt_patches <= box.max_patches


def test_documented_tables_are_what_the_planner_says() -> None:
    page = PAGE.read_text()
    assert table(list(profiles().values()), [find_model(size) for size in published_sizes()]) in page
    assert precision_table(find_profile("rtx4090d"), find_model("4B")) in page


def test_command_line_prints_a_plan_and_refuses_what_does_not_fit() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "build.gpu.fit", *arguments], capture_output=True, text=True, check=False
        )

    fits = run("--gpu", "h100", "--model", "Qwen/Qwen3-VL-4B-Instruct", "--context", "262144")
    assert fits.returncode == 0
    assert "KV cache                       18.00 GiB" in fits.stdout
    refused = run("--gpu", "rtx4090d", "--model", "32B")
    assert refused.returncode == 1
    assert "what would fit" in refused.stdout
    assert "known are" in run("--gpu", "h100", "--model", "70B").stderr
