"""Check the calls to TensorRT against its public bindings, without a GPU; not part of the tests.

    python -m tests.build.gpu.tensorrt_vision.check_bindings

The bindings' wheel (1 MB) has no stubs, and its module needs NVIDIA's libraries. But it imports next to libraries that
only have the right names, because all it calls while importing is C++ through virtual tables. What it then says of
itself becomes stubs, and mypy checks the builder against them.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# The oldest that is accepted, the one in the images (TRT_VERSION), and the newest.
VERSIONS = {"10.14.1.48.post1": 10, "11.1.0.106": 11, "11.4.0.106": 11}
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
ROOT = Path(__file__).parents[4]
CHECKED = Path("build", "gpu", "tensorrt_vision")


def make_stubs(folder: Path, version: str, major: int) -> None:
    """Write `folder`/tensorrt/__init__.pyi as the bindings of `version` describe themselves."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "wheel")]
    subprocess.run([*pip, f"tensorrt-cu13-bindings=={version}"], check=True)
    source = folder / "names.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        subprocess.run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder / "wheel")}
    stubgen = [
        Path(sys.executable).with_name("stubgen"),
        "--quiet",
        "--inspect-mode",
        "-m",
        "tensorrt_bindings.tensorrt",
    ]
    subprocess.run([*stubgen, "-o", folder / "stubs"], check=True, env=environment)
    package = folder / "stubs" / "tensorrt"
    package.mkdir()
    text = (folder / "stubs" / "tensorrt_bindings" / "tensorrt.pyi").read_text()
    # pybind11 names the shapes' class; its constructor takes any sequence, and so do its parameters.
    text = text.replace(
        "min: Dims, opt: Dims, max: Dims", "min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]"
    )
    # One method declares a parameter without a default after others with one, which Python has no syntax for.
    text = re.sub(r"(def add_scale_nd.*, channel_axis: [\w.]+)\)", r"\1 = ...)", text)
    # The module has names of its own for element types, bool among them.
    text = re.sub(r"(?<=[:>] )(bool|int|float)\b", r"builtins.\1", text)
    # What the module does not say of itself: shapes are sequences, and memory is a buffer.
    for name, protocol in (("Dims", "Sequence[builtins.int]"), ("IHostMemory", "Buffer")):
        text = re.sub(rf"^class {name}:", f"class {name}({protocol}):", text, flags=re.MULTILINE)
    text = f"from collections.abc import Sequence\nfrom typing_extensions import Buffer\n{text}"
    (package / "__init__.pyi").write_text(f"import builtins\n__version__: str\n{text}")


def main() -> int:
    failed = 0
    for version, major in VERSIONS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_stubs(folder, version, major)
            mypy = [sys.executable, "-m", "mypy", "--no-incremental", "--follow-imports=silent"]
            mypy += ["--config-file", str(ROOT / "pyproject.toml")]
            result = subprocess.run(
                [*mypy, CHECKED / "builder.py", CHECKED / "check.py"],
                cwd=ROOT,
                env={**os.environ, "MYPYPATH": f"{folder / 'stubs'}"},
                capture_output=True,
                text=True,
                check=False,
            )
            # What mypy finds in the stubs themselves is not ours.
            errors = [line for line in result.stdout.splitlines() if line.startswith(str(CHECKED))]
            print(f"TensorRT {version}: {len(errors)} errors", *errors, sep="\n")
            failed += len(errors)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
