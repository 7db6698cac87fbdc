"""The steps that a build for a profile consists of."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from build.assemble.repository import assemble
from build.gpu import quantise
from build.gpu.configurations import gpu_configurations, server_options, settings, tensorrt_plan_bands
from build.gpu.frames import real_chunks
from build.gpu.manifest import Machine, this_machine, write_manifest
from build.gpu.planner.planning import Fit
from build.gpu.repository_files import write_repository
from build.gpu.steps import Step
from build.gpu.tensorrt_vision import builder, graph
from build.gpu.tensorrt_vision.builder import BuildError
from build.gpu.tensorrt_vision.check import check_features, tensorrt_plan_runner

ENGINE_NAMES = {"tensorrt_llm": "TensorRT-LLM", "pytorch": "PyTorch"}
SAMPLE_VIDEO = Path(__file__).parents[2] / "client" / "examples" / "scenes.mp4"


@dataclass(frozen=True)
class Build:
    """A build for a fit: from which files, and where."""

    fit: Fit
    checkpoint: Path
    quantised: Path | None
    """A checkpoint that is quantised already, if there is one."""
    output: Path
    """Holds `repository`, which is served, and `work`, which makes the next build short."""
    report: Callable[[str], None]
    media_root: str = ""
    """The folder below which `video_uri` may name files, on the machine that serves; empty: none."""

    @property
    def settings(self) -> dict[str, str]:
        """Parameters of the stages' configurations."""
        return {**settings(self.fit), "video_preprocess.media_root": self.media_root}

    @property
    def repository(self) -> Path:
        return self.output / "repository"

    @property
    def work(self) -> Path:
        return self.output / "work"

    @property
    def assembled(self) -> Path:
        """On a CPU what is assembled is what is served."""
        return self.repository if self.fit.profile.is_cpu else self.work / "assembled"

    @property
    def exported(self) -> Path:
        return self.assembled / "vision_encoder" / "1" / "checkpoint" / "vision.onnx"

    @property
    def typed(self) -> Path:
        return self.work / f"vision.{self.fit.profile.vision}.onnx"

    @property
    def tensorrt_plan(self) -> Path:
        return self.work / f"vision.{self.fit.profile.architecture}.plan"

    @property
    def is_quantised(self) -> bool:
        """Whether TensorRT-LLM needs a checkpoint of its own; the PyTorch engine rounds weights when it starts."""
        return self.fit.profile.engine == "tensorrt_llm" and quantise.is_quantised(self.fit.weights)

    @property
    def decoder_checkpoint(self) -> Path:
        if not self.is_quantised:
            return self.checkpoint
        return self.quantised or self.work / f"checkpoint-{self.fit.weights}"


def steps(build: Build) -> list[Step]:
    """In the order in which they run; a step's inputs are what its outputs depend on."""
    if build.fit.profile.is_cpu:
        return [_assemble(build), _manifest(build)]
    decoder = [_decoder(build)] if build.is_quantised else []
    return [_assemble(build), _type(build), _compile(build), _check(build), *decoder, _deploy(build), _manifest(build)]


def _assemble(build: Build) -> Step:
    wanted = build.settings
    return Step(
        name="assemble",
        what=[
            f"checkpoint {build.checkpoint}, vision tower exported to {build.exported}",
            *(f"{name} = {value}" for name, value in wanted.items() if value),
        ],
        inputs={"checkpoint": build.checkpoint, "settings": wanted},
        # The assembly itself repairs what is there, or leaves it alone.
        outputs=[],
        run=lambda: assemble(build.checkpoint, build.assembled, wanted),
    )


def _type(build: Build) -> Step:
    return Step(
        name="type the vision graph",
        what=[f"{build.typed}: standard operators, strongly typed in {build.fit.profile.vision}"],
        inputs={"graph": build.exported.with_name("vision.onnx.sha256"), "code": Path(graph.__file__)},
        outputs=[build.typed],
        run=lambda: graph.write_typed_graph(build.exported, build.typed, build.fit.profile.vision),
    )


def _compile(build: Build) -> Step:
    boxes = tensorrt_plan_bands(build.fit.profile)
    head_dim = build.fit.model.vision.head_dim
    described = build.tensorrt_plan.with_suffix(".json")

    def run() -> None:
        built = builder.build_tensorrt_plan(
            build.typed, build.tensorrt_plan, boxes, head_dim, build.work / "timing.cache"
        )
        if built.compute_capability != build.fit.profile.compute_capability:
            raise BuildError(
                f"this GPU has compute capability {built.compute_capability}; profile {build.fit.profile.key} is for"
                f" {build.fit.profile.compute_capability}"
            )
        described.write_text(json.dumps(asdict(built), indent=2) + "\n")

    return Step(
        name="build the vision plan",
        what=[
            f"{build.tensorrt_plan} for {build.fit.profile.architecture}, profiles (frames x patches):",
            *(
                f"  {box.min_frames}-{box.max_frames} x {box.min_patches}-{box.max_patches},"
                f" best {box.opt_frames} x {box.opt_patches}"
                for box in boxes
            ),
        ],
        inputs={
            "graph": build.typed,
            "profiles": [asdict(box) for box in boxes],
            "machine": asdict(this_machine()),
            "code": Path(builder.__file__),
        },
        outputs=[build.tensorrt_plan, described],
        run=run,
    )


def _check(build: Build) -> Step:
    checked = build.work / "checked.json"

    def run() -> None:
        stage = build.assembled / "video_preprocess" / "1"
        chunks = real_chunks(stage, SAMPLE_VIDEO, tensorrt_plan_bands(build.fit.profile))
        error = check_features(
            tensorrt_plan_runner(build.tensorrt_plan), build.exported, chunks, build.fit.profile.vision
        )
        checked.write_text(json.dumps({"largest_relative_error": error}) + "\n")
        build.report(f"    largest relative error against ONNX Runtime: {error:.2%}")

    return Step(
        name="check the vision plan",
        what=[f"frames of {SAMPLE_VIDEO.name} in every profile, and no frames, against ONNX Runtime in float32"],
        inputs={"plan": build.tensorrt_plan, "video": SAMPLE_VIDEO},
        outputs=[checked],
        run=run,
    )


def _decoder(build: Build) -> Step:
    destination, weights = build.decoder_checkpoint, build.fit.weights
    if build.quantised:
        return Step(
            name="check the quantised checkpoint",
            what=[f"{destination} is in {weights}"],
            inputs={"checkpoint": destination, "weights": weights, "kv_cache": build.fit.kv_cache},
            outputs=[destination],
            run=lambda: quantise.check_quantised(destination, weights, build.fit.kv_cache),
        )
    return Step(
        name="quantise",
        what=[f"{destination}: ModelOpt {quantise.MODELOPT[weights][0]}, vision tower left as it is"],
        inputs={"checkpoint": build.checkpoint, "weights": weights, "calibration": quantise.CALIBRATION},
        outputs=[destination],
        run=lambda: quantise.quantise(build.checkpoint, destination, weights),
    )


def _deploy(build: Build) -> Step:
    fit = build.fit
    return Step(
        name="deploy",
        what=[
            f"{build.repository}: vision_encoder on TensorRT, decoder on {ENGINE_NAMES[fit.profile.engine]}",
            *(f"Triton's {option}" for option in server_options(fit)),
            f"KV cache of {fit.cache_tokens:,} tokens in {fit.kv_cache}, {fit.context_tokens:,} per request",
        ],
        inputs={"assembled": build.assembled, "plan": build.tensorrt_plan, "checkpoint": build.decoder_checkpoint},
        outputs=[],
        run=lambda: write_repository(
            fit,
            gpu_configurations(fit, build.settings),
            build.assembled,
            build.tensorrt_plan,
            build.decoder_checkpoint,
            build.repository,
        ),
    )


def _manifest(build: Build) -> Step:
    machine = Machine("", "", "") if build.fit.profile.is_cpu else this_machine()
    return Step(
        name="manifest",
        what=[f"{build.repository / 'manifest.json'}: versions, hashes and the plan's figures"],
        inputs={},
        outputs=[],
        run=lambda: write_manifest(build.repository, build.fit, build.checkpoint, machine, server_options(build.fit)),
    )
