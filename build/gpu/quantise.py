"""Quantises the text decoder with NVIDIA ModelOpt (0.47), or checks one that is quantised already.

The names of ModelOpt's configurations and functions were checked in its wheel; the run itself needs a GPU, and none
was at hand.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

from build.gpu.tensorrt_vision.builder import BuildError

# ModelOpt's configuration, and the name under which its checkpoints declare it.
MODELOPT = {
    "fp8": ("FP8_DEFAULT_CFG", "FP8"),
    "int8": ("INT8_WEIGHT_ONLY_CFG", "W8A16"),
    "int4_awq": ("INT4_AWQ_CFG", "W4A16_AWQ"),
}
CALIBRATION = Path(__file__).parent / "calibration.txt"


def is_quantised(weights: str) -> bool:
    """Whether a precision needs a quantised checkpoint."""
    return weights in MODELOPT


def check_quantised(folder: Path, weights: str, kv_cache: str) -> None:
    """Raises BuildError unless `folder` holds a ModelOpt checkpoint in these precisions."""
    path = folder / "hf_quant_config.json"
    if not path.is_file():
        raise BuildError(f"{folder} has no hf_quant_config.json: a checkpoint that ModelOpt quantised is accepted")
    quantisation = json.loads(path.read_text())["quantization"]
    _, algorithm = MODELOPT[weights]
    if quantisation.get("quant_algo") != algorithm:
        raise BuildError(
            f"{folder} is quantised as {quantisation.get('quant_algo')}; the plan has {weights}, which is {algorithm}"
        )
    if kv_cache == "fp8" and quantisation.get("kv_cache_quant_algo") not in (None, "FP8"):
        raise BuildError(f"{folder} has a KV cache in {quantisation['kv_cache_quant_algo']}; the plan has FP8")


def quantise(checkpoint: Path, destination: Path, weights: str) -> None:
    """Write `checkpoint` to `destination` with its decoder's projections in `weights`, and all else as it is."""
    if find_spec("modelopt") is None:
        raise BuildError(
            "the package nvidia-modelopt is not importable: build inside the builder image (docker/builder.Dockerfile),"
            " or give a quantised checkpoint with --quantised FOLDER"
        )
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_hf_checkpoint
    from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

    if not torch.cuda.is_available():
        raise BuildError("no GPU is visible: quantisation runs the model to see how large its activations get")
    model = Qwen3VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.bfloat16, device_map="cuda").eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)

    def calibrate(calibrated: torch.nn.Module) -> None:
        for line in CALIBRATION.read_text(encoding="utf-8").splitlines():
            calibrated(**tokenizer(line, return_tensors="pt").to("cuda"))

    configuration = {**getattr(mtq, MODELOPT[weights][0])}
    # The vision tower is TensorRT's; here it would only be calibrated without pictures.
    configuration["quant_cfg"] = [*configuration["quant_cfg"], {"quantizer_name": "*visual*", "enable": False}]
    with torch.inference_mode():
        model = mtq.quantize(model, configuration, calibrate)
        draft = destination.with_name(f".{destination.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        export_hf_checkpoint(model, export_dir=draft)
    # ModelOpt does not write tokenizer, chat template and processors.
    for file in checkpoint.iterdir():
        described = file.suffix in (".json", ".jinja", ".txt") and not file.name.endswith(".index.json")
        if described and not (draft / file.name).exists():
            shutil.copy(file, draft / file.name)
    shutil.rmtree(destination, ignore_errors=True)
    draft.rename(destination)
