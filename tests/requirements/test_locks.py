"""What is installed is what was locked: each set's pins with the hashes of their files, and nothing of this machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
LOCKS = sorted((REQUIREMENTS / "locked").glob("*.txt"))
# Parts of sets alone, and PyTorch, which torch.txt speaks of.
UNLOCKED = {"load", "reference", "torch"}
# There PyPI's PyTorch is the one that is wanted, and locked.
ON_GPU = {"build", "gpu_pytorch", "gpu_tensorrt_llm"}


def pins(file: Path) -> dict[str, str]:
    """Package -> version of a set, with those of the sets that it names."""
    found: dict[str, str] = {}
    for line in file.read_text().splitlines():
        if line.startswith("-r "):
            found |= pins(file.parent / line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            found[canonicalize_name(requirement.name)] = specifier.version
    return found


def locked(file: Path) -> dict[str, tuple[str, list[str]]]:
    """Package -> version and hashes of a lock."""
    found = {}
    for entry in re.sub(r"\\\n\s+", "", file.read_text()).splitlines():
        requirement, *hashes = entry.split("--hash=")
        parsed = Requirement(requirement)
        (specifier,) = parsed.specifier
        assert canonicalize_name(parsed.name) not in found, "two versions of one package"
        found[canonicalize_name(parsed.name)] = (specifier.version, [text.strip() for text in hashes])
    return found


def test_every_set_has_a_lock() -> None:
    assert {path.stem for path in LOCKS} == {path.stem for path in REQUIREMENTS.glob("*.txt")} - UNLOCKED


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_has_its_sets_pins_and_hashes_for_all(lock: Path) -> None:
    wanted, found = pins(REQUIREMENTS / lock.name), locked(lock)
    if lock.stem not in ON_GPU:
        wanted.pop("torch", None)
        assert not [name for name in found if name == "torch" or (name.startswith("nvidia-cu") and name not in wanted)]
    assert {name: version for name, (version, _) in found.items() if name in wanted} == wanted
    assert all(
        hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in hashes) for _, hashes in found.values()
    )


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_names_no_index_and_no_path(lock: Path) -> None:
    for line in lock.read_text().splitlines():
        assert re.fullmatch(
            r"[a-z0-9-]+(\[[a-z]+\])?==[\w.+!]+( ; [\w .<>=!']+)? \\|    --hash=sha256:\w{64}( \\)?", line
        )


def test_what_shares_an_environment_has_one_version_of_each_package() -> None:
    everything = locked(REQUIREMENTS / "locked" / "test.txt")
    for part in ("serve", "client", "front", "speech"):
        for name, entry in locked(REQUIREMENTS / "locked" / f"{part}.txt").items():
            assert (part == "speech" and name not in everything) or entry == everything[name], (part, name)


def test_a_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    """pip with the options of the Makefile, before a folder that has what is wanted with one byte changed."""
    makefile = (REQUIREMENTS.parent / "Makefile").read_text()
    (options,) = re.findall(r"^LOCKED := (.*) --requirement requirements/locked$", makefile, re.MULTILINE)
    wheel = tmp_path / "wheels" / "thing-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    build = tmp_path / "build"
    (build / "thing-1.0.dist-info").mkdir(parents=True)
    (build / "thing-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    (build / "thing-1.0.dist-info" / "WHEEL").write_text(
        "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    (build / "thing-1.0.dist-info" / "RECORD").write_text("")
    subprocess.run([sys.executable, "-m", "zipfile", "-c", wheel, f"{build}/thing-1.0.dist-info"], check=True)
    hashed = subprocess.run([sys.executable, "-m", "pip", "hash", wheel], capture_output=True, text=True, check=True)
    lock = tmp_path / "lock.txt"
    lock.write_text("thing==1.0 \\\n    " + hashed.stdout.strip().splitlines()[-1] + "\n")
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-index", f"--find-links={wheel.parent}"),
        *options.split(),
    ]
    run = [*command, "--requirement", str(lock), "--dest"]
    assert subprocess.run([*run, tmp_path / "right"], capture_output=True).returncode == 0
    wheel.write_bytes(wheel.read_bytes() + b" ")
    refused = subprocess.run([*run, tmp_path / "wrong"], capture_output=True, text=True)
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr


def test_the_makefile_installs_from_locks_alone() -> None:
    makefile = (REQUIREMENTS.parent / "Makefile").read_text()
    installs = re.findall(r"^\t@.*(?:\$\(PIP\)|\$\(PIP_INSTALL\)) (.*)$", makefile, re.MULTILINE)
    assert len(installs) >= 8
    others = {text.rstrip(")") for text in installs if not text.startswith("$(LOCKED)/")}
    editable = "--no-deps --no-build-isolation --editable"
    assert others == {"--requirement requirements/torch.txt", f"{editable} .", f"{editable} client"}
