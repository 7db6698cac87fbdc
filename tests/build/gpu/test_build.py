import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from build.assemble.repository import configurations
from build.gpu.build import SAMPLE_VIDEO, Build, steps
from build.gpu.configurations import gpu_configurations, server_options, settings, tensorrt_plan_bands
from build.gpu.frames import real_chunks
from build.gpu.llm_arguments import llm_arguments
from build.gpu.planner.models import find_model, published_sizes
from build.gpu.planner.planning import Fit, find_fit
from build.gpu.planner.profiles import ENGINES, find_profile, profiles
from build.gpu.repository_files import bound_images, write_repository
from build.gpu.steps import Step, run_steps
from build.gpu.tensorrt_vision.check import check_features
from engines.settings import read_settings


def parse(path: Path) -> ModelConfig:
    return text_format.Parse(path.read_text(), ModelConfig())


@pytest.fixture
def deployed(checkpoint: Path, assembled: Path, gpu_fit: Fit, tmp_path: Path) -> Path:
    tensorrt_plan = tmp_path / "vision.plan"
    tensorrt_plan.write_bytes(b"a plan")
    chosen = {**settings(gpu_fit), "video_preprocess.media_root": "/data/media"}
    # Twice: a second deployment replaces the first.
    for _ in range(2):
        write_repository(
            gpu_fit, gpu_configurations(gpu_fit, chosen), assembled, tensorrt_plan, checkpoint, tmp_path / "repository"
        )
    return tmp_path / "repository"


def published_fits() -> list[Fit]:
    """Of every profile, engine and published size that fit each other."""
    cards = [profile.with_engine(engine) for profile in profiles().values() if not profile.is_cpu for engine in ENGINES]
    wishes = itertools.product([*cards, find_profile("cpu")], map(find_model, published_sizes()))
    return [fit for profile, model in wishes if isinstance(fit := find_fit(profile, model), Fit)]


every_fit = pytest.mark.parametrize(
    "fit", published_fits(), ids=lambda fit: f"{fit.profile.key}-{fit.profile.engine}-{fit.model.name}"
)


@every_fit
def test_every_profile_and_size_has_steps(fit: Fit, tmp_path: Path) -> None:
    lines: list[str] = []
    build = Build(fit, Path("checkpoint"), None, tmp_path / "output", lines.append)
    run_steps(steps(build), tmp_path / "stamps", lines.append, dry_run=True)
    text = "\n".join(lines)
    assert f"decoder.kv_cache_tokens = {fit.cache_tokens}" in text
    assert ("vision_encoder on TensorRT" in text) == (not fit.profile.is_cpu)
    assert ("decoder on TensorRT-LLM" in text) == (fit.profile.engine == "tensorrt_llm")
    assert ("ModelOpt" in text) == (fit.weights in ("fp8", "int8", "int4_awq"))
    assert not (tmp_path / "output").exists()


@every_fit
def test_every_configuration_is_one_that_triton_reads(fit: Fit) -> None:
    chosen = settings(fit)
    texts = configurations(chosen) if fit.profile.is_cpu else gpu_configurations(fit, chosen)
    parsed = {model: text_format.Parse(text, ModelConfig()) for model, text in texts.items()}
    assert set(parsed) == {"qwen3_vl", "video_preprocess", "vision_encoder", "decoder"}
    decoder = {name: value.string_value for name, value in parsed["decoder"].parameters.items()}
    read = read_settings(decoder, Path("1"))
    assert (read.engine, read.kv_cache_tokens) == (fit.profile.engine, fit.cache_tokens)
    assert all(config.instance_group[0].count == 1 for model, config in parsed.items() if model != "qwen3_vl")
    produced = {tensor.name: list(tensor.dims) for tensor in parsed["video_preprocess"].output}
    for tensor in parsed["vision_encoder"].input:
        fits = zip(produced[tensor.name], tensor.dims, strict=True)
        assert all(-1 in (made, taken) or made == taken for made, taken in fits), tensor.name
    on_gpu = decoder.get("FORCE_CPU_ONLY_INPUT_TENSORS") == "no"
    assert on_gpu == (not fit.profile.is_cpu and fit.profile.engine == "pytorch")


@every_fit
def test_triton_s_pool_holds_what_is_on_its_way_to_the_engine_and_nothing_else(fit: Fit) -> None:
    options = server_options(fit)
    if fit.profile.is_cpu:
        assert options == []
        return
    pool = int(options[0].removeprefix("--cuda-memory-pool-byte-size=0:"))
    features = next(part.bytes for part in fit.parts if part.name == "features")
    if fit.profile.engine == "tensorrt_llm":
        assert pool == 0
    else:
        chunk = fit.profile.chunk_tokens * fit.model.vision.feature_width * 4
        assert 2 * chunk * 4 * fit.concurrency == pool < features


def test_dry_run_needs_no_checkpoint_and_says_what_does_not_fit(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "build.gpu", *arguments, "--output", str(tmp_path / "output"), "--dry-run"]
        environment = {"PATH": "/usr/bin:/bin"}
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    built = run("--gpu", "h100", "--model", "8B")
    assert built.returncode == 0, built.stderr
    assert "vision.sm_90.plan for sm_90" in built.stdout
    refused = run("--gpu", "a10g", "--model", "32B")
    assert refused.returncode == 1
    assert "what would fit" in refused.stdout
    assert "argument --model is empty" in run("--gpu", "a10g", "--model", "").stderr
    pytorch = run("--gpu", "a10g", "--model", "4B", "--engine", "pytorch")
    assert "decoder on PyTorch" in pytorch.stdout
    wrong = run("--gpu", "a10g", "--model", "4B", "--kv-cache", "fp8")
    assert wrong.returncode == 2
    assert "error: KV cache in fp8 do not exist on A10G 24 GB (sm_86)" in wrong.stderr


def test_the_target_s_old_name_says_the_new_one() -> None:
    make = ["make", "--dry-run", "--assume-old=.venv/.serve", "engines", "GPU=h100", "ENGINES=there"]
    made = subprocess.run(make, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert "is called `make repository OUTPUT=...` now" in made.stdout
    assert "--output 'there'" in made.stdout


def test_every_configuration_of_a_gpu_repository_parses(deployed: Path) -> None:
    configurations = {path.parent.name: parse(path) for path in deployed.glob("*/config.pbtxt")}
    assert set(configurations) == {"qwen3_vl", "video_preprocess", "vision_encoder", "decoder"}
    encoder = configurations["vision_encoder"]
    assert (encoder.platform, encoder.default_model_filename) == ("tensorrt_plan", "model.plan")
    assert not encoder.backend
    assert (deployed / "vision_encoder" / "1" / "model.plan").read_bytes() == b"a plan"
    assert [tensor.name for tensor in encoder.output] == ["features"]
    assert encoder.instance_group[0].kind == ModelInstanceGroup.KIND_GPU
    assert configurations["decoder"].parameters["engine"].string_value == "tensorrt_llm"
    assert configurations["video_preprocess"].parameters["media_root"].string_value == "/data/media"
    steps = {step.model_name: step for step in configurations["qwen3_vl"].ensemble_scheduling.step}
    assert set(steps["vision_encoder"].output_map) == {"features"}
    assert "encode_seconds" not in steps["decoder"].input_map
    assert configurations["qwen3_vl"].ensemble_scheduling.max_inflight_requests == 64 * 7


def test_the_vision_encoder_is_warmed_up_in_every_profile_within_its_shapes(deployed: Path) -> None:
    encoder = parse(deployed / "vision_encoder" / "config.pbtxt")
    boxes = tensorrt_plan_bands(find_profile("rtx4090d"))
    assert list(encoder.instance_group[0].profile) == [str(index) for index in range(len(boxes))]
    assert len(encoder.model_warmup) == len(boxes)
    declared = {tensor.name: list(tensor.dims) for tensor in encoder.input}
    for warm_up, box in zip(encoder.model_warmup, boxes, strict=True):
        assert list(warm_up.inputs["patches"].dims) == [box.opt_frames, box.opt_patches, 1536]
        for name, tensor in warm_up.inputs.items():
            assert len(tensor.dims) == len(declared[name])
            assert all(want in (-1, got) for want, got in zip(declared[name], tensor.dims, strict=True))


def test_a_gpu_repository_holds_what_tensorrt_llm_loads_and_leaves_the_assembled_one_alone(
    deployed: Path, assembled: Path, checkpoint: Path, gpu_fit: Fit
) -> None:
    folder = deployed / "decoder" / "1"
    names = {file.name for file in checkpoint.iterdir()}
    assert names <= {file.name for file in (folder / "checkpoint").iterdir()}
    arguments = json.loads((folder / "llm.json").read_text())
    assert arguments == llm_arguments(gpu_fit)
    assert arguments["kv_cache_config"]["dtype"] == "fp8"
    decoder = parse(deployed / "decoder" / "config.pbtxt").parameters
    assert decoder["block_size"].string_value == str(arguments["kv_cache_config"]["tokens_per_block"])
    assert decoder["kv_cache_tokens"].string_value == str(arguments["kv_cache_config"]["max_tokens"])
    assert decoder["context_length"].string_value == str(arguments["max_seq_len"])
    assert decoder["max_step_tokens"].string_value == str(arguments["max_num_tokens"])
    assert decoder["max_batch"].string_value == str(arguments["max_batch_size"])
    assert arguments["kv_cache_config"]["max_tokens"] == 2 * arguments["max_seq_len"]
    assert not (folder / "llm.json").samefile(assembled / "decoder" / "1" / "model.py")
    assert not parse(assembled / "vision_encoder" / "config.pbtxt").platform
    assert (assembled / "vision_encoder" / "1" / "model.py").exists()
    assert not (deployed / "vision_encoder" / "1" / "model.py").exists()


def test_the_pytorch_engine_gets_the_checkpoint_as_it_is(checkpoint: Path, assembled: Path, tmp_path: Path) -> None:
    fit = find_fit(find_profile("rtx4090d").with_engine("pytorch"), find_model(str(checkpoint)), weights="int4")
    assert isinstance(fit, Fit)
    (tmp_path / "vision.plan").write_bytes(b"a plan")
    configured = gpu_configurations(fit, settings(fit))
    write_repository(fit, configured, assembled, tmp_path / "vision.plan", checkpoint, tmp_path / "repository")
    folder = tmp_path / "repository" / "decoder" / "1"
    assert not (folder / "llm.json").exists()
    for name in ("config.json", "model.safetensors"):
        assert (folder / "checkpoint" / name).read_bytes() == (checkpoint / name).read_bytes()
    decoder = parse(tmp_path / "repository" / "decoder" / "config.pbtxt").parameters
    assert (decoder["weights"].string_value, decoder["device"].string_value) == ("int4", "cuda")


def test_tied_embeddings_are_said_where_tensorrt_llm_asks(deployed: Path, checkpoint: Path) -> None:
    original = json.loads((checkpoint / "config.json").read_text())
    config = json.loads((deployed / "decoder" / "1" / "checkpoint" / "config.json").read_text())
    assert config["text_config"].pop("tie_word_embeddings") is original["tie_word_embeddings"] is True
    original["text_config"].pop("tie_word_embeddings", None)
    assert config == original


def test_pictures_are_bounded_to_what_the_plan_was_built_for(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": {"longest_edge": 16_777_216, "shortest_edge": 65_536}, "patch_size": 16})
    )
    bound_images(tmp_path, 1024)
    content = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert content == {"size": {"longest_edge": 1024 * 32 * 32, "shortest_edge": 65_536}, "patch_size": 16}


def test_pictures_of_a_deployment_are_bounded_without_touching_the_checkpoint(
    deployed: Path, assembled: Path, checkpoint: Path
) -> None:
    name = "preprocessor_config.json"
    original = json.loads((checkpoint / name).read_text())
    bounded = json.loads((deployed / "video_preprocess" / "1" / "checkpoint" / name).read_text())
    assert bounded["size"]["longest_edge"] == min(original["size"]["longest_edge"], 1024 * 32 * 32)
    assert json.loads((assembled / "video_preprocess" / "1" / "checkpoint" / name).read_text()) == original


def test_real_chunks_lie_in_their_bands_and_pass_through_the_served_graph(assembled: Path, exported: Path) -> None:
    boxes = tensorrt_plan_bands(find_profile("rtx4090d"))[2:4]
    chunks = list(real_chunks(assembled / "video_preprocess" / "1", SAMPLE_VIDEO, boxes))
    assert chunks[0]["patches"].shape == (0, 4, 1536)
    for chunk, box in zip(chunks[1:], boxes, strict=True):
        frames, patches = chunk["patches"].shape[:2]
        assert frames == box.opt_frames
        assert box.min_patches <= patches <= box.max_patches
        assert chunk["patches"].std() > 10, "a real picture is not flat"
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])

    def run(chunk: Any) -> np.ndarray[Any, Any]:
        return session.run(None, dict(chunk))[0]

    assert check_features(run, exported, chunks, "fp32") == 0


@pytest.fixture
def recorder(tmp_path: Path) -> tuple[list[str], Callable[[Any, bool], Step]]:
    ran: list[str] = []

    def make(value: Any, fails: bool) -> Step:
        output = tmp_path / "output"

        def run() -> None:
            ran.append(str(value))
            if fails:
                raise RuntimeError("interrupted")
            output.write_text("made")

        return Step("make it", ["it is made"], {"value": value}, [output], run)

    return ran, make


def test_steps_run_once_until_their_inputs_change(
    recorder: tuple[list[str], Callable[[Any, bool], Step]], tmp_path: Path
) -> None:
    ran, make = recorder
    source = tmp_path / "source"
    source.write_text("one")

    def go(value: Any, *, fails: bool = False) -> None:
        run_steps([make(value, fails)], tmp_path / "stamps", lambda _: None, dry_run=False)

    go(source)
    go(source)
    assert len(ran) == 1
    source.write_text("two")
    go(source)
    assert len(ran) == 2
    (tmp_path / "output").unlink()
    go(source)
    assert len(ran) == 3


def test_an_interrupted_step_runs_again(
    recorder: tuple[list[str], Callable[[Any, bool], Step]], tmp_path: Path
) -> None:
    ran, make = recorder
    for fails in (False, True, False):
        step = make("new" if ran else "old", fails)
        if fails:
            with pytest.raises(RuntimeError, match="interrupted"):
                run_steps([step], tmp_path / "stamps", lambda _: None, dry_run=False)
        else:
            run_steps([step], tmp_path / "stamps", lambda _: None, dry_run=False)
    assert ran == ["old", "new", "new"]
