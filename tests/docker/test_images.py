"""What can be said of the images without building them: what they copy exists, what they install is pinned."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from build.gpu.planner.profiles import ENGINES

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
COMPOSE_FILES = sorted((ROOT / "docker").glob("compose.*.yaml"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """Each instruction of a Dockerfile and its arguments, lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def is_sent(path: Path) -> bool:
    """Whether .dockerignore lets a folder into the build: everything is out but what a `!` line names."""
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "**"
    return f"!{path.parts[0]}" in lines


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_what_is_copied_exists_and_is_sent(dockerfile: Path) -> None:
    copies = [arguments.split() for name, arguments in instructions(dockerfile) if name == "COPY"]
    assert copies
    for copy in copies:
        if any(word.startswith("--from=") for word in copy):
            continue
        for source in [word for word in copy if not word.startswith("--")][:-1]:
            assert (ROOT / source).exists(), source
            assert is_sent(Path(source)), source


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_bases_are_pinned_and_the_last_user_is_not_root(dockerfile: Path) -> None:
    """Python's by digest; NVIDIA's registry could not be asked for one: whoever builds gives it as an argument."""
    steps = instructions(dockerfile)
    defaults = dict(arguments.split("=", 1) for name, arguments in steps if name == "ARG")
    bases = [defaults[arguments.split()[0].strip("${}")] for name, arguments in steps if name == "FROM"]
    pinned = r"python:[\d.]+-[\w.-]+@sha256:[0-9a-f]{64}|nvcr\.io/nvidia/tritonserver:[\d.]+-py3"
    assert bases
    assert all(re.fullmatch(pinned, base) for base in bases), bases
    assert [arguments for name, arguments in steps if name == "USER"][-1] == "1000"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_packages_come_from_locks(dockerfile: Path) -> None:
    """But PyTorch on a CPU, TensorRT, which is the base's, and our own client, which fetches nothing to be built."""
    runs = " && ".join(arguments for name, arguments in instructions(dockerfile) if name == "RUN")
    installs = [step for step in re.split(r"\s*&&\s*", runs) if re.search(r"\bpip install\b", step)]
    locked = [step for step in installs if "/locked/" in step]
    assert locked
    for step in locked:
        assert "--require-hashes --no-deps" in step
        # What a build argument stands for may be anything that there is a file for.
        for name in re.findall(r"requirements/(locked/[\w${}]+\.txt)", step):
            assert list((ROOT / "requirements").glob(re.sub(r"\$\{\w+\}", "*", name))), name
    others = [re.sub(r"\s+", " ", step) for step in installs if step not in locked]
    known = r".*pip install (--no-deps --no-build-isolation /tmp/client|\"tensorrt==\$\{TRT_VERSION\}\"|.*/torch\.txt)"
    assert all(re.fullmatch(known, step) for step in others), others


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_every_image_has_the_client_which_the_gate_before_triton_is_built_on(dockerfile: Path) -> None:
    assert any(name == "RUN" and "/tmp/client" in arguments for name, arguments in instructions(dockerfile))


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_what_is_written_is_for_the_images_user_only(dockerfile: Path) -> None:
    steps = instructions(dockerfile)
    starts = [arguments for name, arguments in steps if name == "ENTRYPOINT"]
    starts = starts or [arguments for name, arguments in steps if name == "CMD"]
    assert "umask 077 && exec " in starts[-1]
    for name, arguments in steps:
        assert name != "RUN" or "/data" not in arguments or "chmod --recursive 700 /data" in arguments
        assert name != "COPY" or "--chown" not in arguments


def test_the_servers_command_has_options_that_it_knows() -> None:
    (command,) = [text for name, text in instructions(ROOT / "docker" / "cpu.Dockerfile") if name == "CMD"]
    used = set(re.findall(r"--[a-z-]+", command))
    script = [sys.executable, "-m", "build.serve", "--help"]
    known = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert used <= set(re.findall(r"--[a-z-]+", known))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_gpu_server_can_be_made_for_either_engine(engine: str) -> None:
    """Each has packages of its own, and what every stage imports is among them or comes with TensorRT-LLM."""
    names, pinned = [f"gpu_{engine}.txt"], set()
    for name in names:
        lines = (ROOT / "requirements" / name).read_text().splitlines()
        names += [line.removeprefix("-r ") for line in lines if line.startswith("-r ")]
        pinned |= {re.split(r"[=\[]", line)[0] for line in lines if line and not line.startswith(("#", "-r"))}
    brought = {"torch", "transformers", "tokenizers", "numpy"} if "tensorrt-llm" in pinned else set()
    stage_1 = {"av", "jinja2", "pillow", "pysubs2", "charset-normalizer", "numpy", "torch", "transformers"}
    stage_3 = {"safetensors", "llguidance", "tokenizers"} if engine == "pytorch" else {"tensorrt-llm"}
    assert stage_1 | stage_3 <= pinned | brought


@pytest.mark.parametrize("dockerfile", [path for path in DOCKERFILES if "gpu" in path.stem or "cpu" in path.stem])
def test_servers_are_healthy_when_a_model_has_answered(dockerfile: Path) -> None:
    (check,) = [arguments for name, arguments in instructions(dockerfile) if name == "HEALTHCHECK"]
    assert "127.0.0.1:8003/ready" in check


@pytest.mark.parametrize("compose_file", COMPOSE_FILES, ids=lambda path: path.stem)
def test_compose_files_build_from_files_that_exist(compose_file: Path) -> None:
    compose: dict[str, Any] = yaml.safe_load(compose_file.read_text())
    for service in (service for service in compose["services"].values() if "build" in service):
        context = (compose_file.parent / service["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / service["build"]["dockerfile"]).is_file()
        assert re.search(r":\d+\.\d+\.\d+$", service["image"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (compose_file.parent / source).exists()
    server = compose["services"]["server"]
    if compose_file.stem == "compose.front":
        assert server == {"environment": {"MEDIA_ROOT": "/data/media"}, "volumes": ["media:/data/media"]}
        return
    assert server["shm_size"] in ("1gb", "16gb")
    assert {port.rsplit(":", 1)[1] for port in server["ports"]} == {"8000", "8001", "8002", "8003"}


SERVICES = [
    pytest.param(service, id=f"{file.stem}-{name}")
    for file in COMPOSE_FILES
    for name, service in yaml.safe_load(file.read_text())["services"].items()
    if "image" in service
]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_is_taken_over_can_do_little(service: dict[str, Any]) -> None:
    assert service["user"] == "1000:1000"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "userns_mode"} & set(service)
    assert all(re.fullmatch(r"/tmp:size=\d+[mg],mode=1777", mount) for mount in service["tmpfs"])
    assert 0 < service["pids_limit"] <= 8192
    assert re.fullmatch(r"\$\{[A-Z]+_MEMORY:-\d+g\}", service["mem_limit"])
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    # What is not read-only is a named volume below /data.
    for volume in service.get("volumes", []):
        source, target, *mode = volume.split(":")
        assert mode == ["ro"] or ("/" not in source and target.startswith("/data"))
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("script", sorted((ROOT / "docker").glob("*.sh")), ids=lambda path: path.stem)
def test_scripts_are_shell(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


def test_front_shares_the_servers_media_root() -> None:
    front = yaml.safe_load((ROOT / "docker" / "compose.front.yaml").read_text())["services"]
    command = front["front"]["command"]
    assert command[command.index("--media-root") + 1] == front["server"]["environment"]["MEDIA_ROOT"]
    assert front["front"]["volumes"] == front["server"]["volumes"] == ["media:/data/media"]
    assert front["front"]["depends_on"]["server"]["condition"] == "service_healthy"
    assert "127.0.0.1:8080/" in front["front"]["healthcheck"]["test"][-1]
