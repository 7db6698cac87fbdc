"""Each message names what is wrong, with its value, and what to do."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from build.serve.server.prerequisites import (
    PrerequisiteError,
    check_disk,
    check_platform,
    check_ports,
    check_shared_memory,
    find_libpython,
)
from build.serve.server.triton import free_ports

ROOT = Path(__file__).parents[3]


def test_this_machine_is_supported():
    check_platform()
    assert find_libpython().is_file()


@pytest.mark.parametrize(
    ("python", "said"), [((3, 10), "Python 3.10 is too old: 3.11 and 3.12"), ((3, 13), "Python 3.13 is too new")]
)
def test_python_version(python, said):
    with pytest.raises(PrerequisiteError, match=said):
        check_platform(python=python)


@pytest.mark.parametrize("python", [(3, 11), (3, 12)])
def test_both_ends_of_the_python_versions(python):
    check_platform(python=python)


def test_another_processor():
    with pytest.raises(PrerequisiteError, match="this is Linux on aarch64"):
        check_platform(machine="aarch64")


@pytest.mark.parametrize("libc", [("glibc", "2.34"), ("", "")])
def test_c_library(libc):
    with pytest.raises(PrerequisiteError, match=r"needs glibc 2\.35 or newer"):
        check_platform(libc=libc)


def test_glibc_versions_are_numbers():
    check_platform(libc=("glibc", "2.100"))


def test_python_without_a_shared_library(tmp_path):
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(PrerequisiteError, match=rf"apt install libpython{version}") as caught:
        find_libpython([tmp_path])
    assert str(tmp_path) in str(caught.value)


def test_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = listening.getsockname()[1]
        free = free_ports("127.0.0.1", 1)[0]
        with pytest.raises(PrerequisiteError, match=rf"port {taken} .*GRPC_PORT=PORT"):
            check_ports("127.0.0.1", {"HTTP_PORT": free, "GRPC_PORT": taken})
    check_ports("127.0.0.1", {"HTTP_PORT": free, "GRPC_PORT": taken})


def test_port_that_is_given_twice():
    with pytest.raises(PrerequisiteError, match="HTTP_PORT and GRPC_PORT are both 8000"):
        check_ports("127.0.0.1", {"HTTP_PORT": 8000, "GRPC_PORT": 8000})


def test_port_out_of_range():
    with pytest.raises(PrerequisiteError, match="port 65536"):
        check_ports("127.0.0.1", {"HTTP_PORT": 65536})


def test_disk_space_is_looked_up_where_the_folder_will_be(tmp_path):
    free_bytes = shutil.disk_usage(tmp_path).free
    with pytest.raises(PrerequisiteError, match=f"below {tmp_path} and"):
        check_disk(tmp_path / "not" / "made", 2 * free_bytes)
    check_disk(tmp_path / "not" / "made", 1)


def test_shared_memory(tmp_path):
    with pytest.raises(PrerequisiteError, match="--shm-size"):
        check_shared_memory(tmp_path, needed_bytes=2 * shutil.disk_usage(tmp_path).free)


def test_make_names_a_python_that_is_not_supported(tmp_path):
    """What a person sees who has only an old Python: `make` installs nothing."""
    old = tmp_path / "python3"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.exit(1)"\n')
    old.chmod(0o755)
    arguments = ["make", "--no-print-directory", f"VENV={tmp_path / 'venv'}", "env"]
    # Nothing but `make` and a shell on the PATH.
    for tool in ("make", "sh", "test", "echo"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    made = subprocess.run(arguments, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert made.returncode != 0
    assert "no Python 3.11 or 3.12 is on the PATH" in made.stderr
    assert not (tmp_path / "venv").exists()
