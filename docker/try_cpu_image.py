"""Execute the CPU image's steps in a clean Debian root, where there is no container engine; not part of the tests.

    sudo python3 docker/try_cpu_image.py ROOT [--wheels FOLDER] [--certificates FILE]

ROOT is made by debootstrap (Debian 12 with its own Python 3.11, in place of the Python image that the file names)
and can be removed afterwards. COPY, RUN, ENV, USER, WORKDIR, CMD and HEALTHCHECK are taken from `cpu.Dockerfile`:
what is tried is what is built. The server runs as the image's user, in namespaces of its own and confined as
`compose.cpu.yaml` says (nothing to write to but /data, /tmp and /dev/shm, no way to more rights), until the health
check says that a model has answered.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = "python3,python3-venv,libpython3.11,ca-certificates"

# As compose.cpu.yaml has it: read-only but for the volume and what lies in memory.
MOUNTS = """
set -e
mount --bind {root} {root}
mount --bind {root}/data {root}/data
mount -t proc proc {root}/proc
mount -t tmpfs -o size=1g tmpfs {root}/dev/shm
mount -t tmpfs -o size=256m,mode=1777,noexec,nosuid,nodev tmpfs {root}/tmp
mount -o remount,bind,ro {root}
if touch {root}/opt/qwen3-vl/written 2>/dev/null; then exit 1; fi
set +e
"""

# Starts the command, asks until it is healthy, and ends it; `lo` is down in a new network namespace.
PROBE = """
ip link set lo up
{command} & server=$!
for second in $(seq 240); do
    if {check} 2>/dev/null; then echo "healthy after $second checks"; kill -TERM $server; wait $server; exit 0; fi
    kill -0 $server 2>/dev/null || exit 1
    sleep 1
done
exit 1
"""


@dataclass
class Image:
    """A root after the instructions so far."""

    root: Path
    environment: dict[str, str]
    user: str = "0"
    folder: str = "/"
    command: list[str] = field(default_factory=list)
    check: list[str] = field(default_factory=list)

    def run(self, command: str) -> None:
        """A RUN step: a shell in the root."""
        print(f"RUN {command}", flush=True)
        command = f"cd {self.folder} && {command}"
        subprocess.run(["chroot", self.root, "sh", "-c", command], env=self.environment, check=True)

    def copy(self, arguments: str) -> None:
        """A COPY step; from another stage it is a change of owner, because all stages share the root."""
        words = shlex.split(arguments)
        options = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
        *sources, target = [word for word in words if not word.startswith("--")]
        destination = self.root / target.lstrip("/")
        for source in sources if "from" not in options else []:
            origin = REPOSITORY / source
            if origin.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(origin, destination, dirs_exist_ok=True, ignore=ignored)
            else:
                destination.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, destination)
        if "chown" in options:
            subprocess.run(["chown", "--recursive", options["chown"], destination], check=True)

    def probe(self) -> None:
        """CMD and HEALTHCHECK as the image's user."""
        enter = [
            "setpriv",
            "--no-new-privs",
            "chroot",
            f"--userspec={self.user}:{self.user}",
            str(self.root),
            "sh",
            "-c",
        ]
        script = PROBE.format(
            command=shlex.join([*enter, f"cd {self.folder} && exec {shlex.join(self.command)}"]),
            check=shlex.join([*enter, f"exec {shlex.join(self.check)}"]),
        )
        namespaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
        mounts = MOUNTS.format(root=shlex.quote(str(self.root)))
        subprocess.run([*namespaces, "bash", "-c", f"{mounts}\n{script}"], env=self.environment, check=True)


def instructions(path: Path) -> list[tuple[str, str]]:
    """Each instruction and its arguments, lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def execute(image: Image, name: str, arguments: str) -> None:
    match name:
        case "RUN":
            image.run(arguments)
        case "COPY":
            image.copy(arguments)
        case "ENV":
            image.environment |= dict(word.split("=", 1) for word in shlex.split(arguments))
        case "USER":
            image.user = arguments
        case "WORKDIR":
            image.folder = arguments
            (image.root / arguments.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "CMD":
            image.command = json.loads(arguments)
        case "HEALTHCHECK":
            image.check = json.loads(arguments.partition("CMD ")[2])
        case "FROM":
            image.user, image.folder = "0", "/"
        case "ARG" | "VOLUME" | "EXPOSE" | "STOPSIGNAL":
            pass
        case _:
            raise ValueError(f"{name} is not understood; extend docker/try_cpu_image.py")


def main() -> int:
    parser = argparse.ArgumentParser(description="Execute the CPU image's steps in a clean Debian root.")
    parser.add_argument("root", type=Path, help="folder of the root; made if it is not there")
    parser.add_argument("--wheels", type=Path, help="wheels to prefer over the package index, e.g. PyTorch's CPU build")
    parser.add_argument("--certificates", type=Path, help="certificates for a network that has its own")
    arguments = parser.parse_args()
    if os.geteuid():
        parser.error("only root can make and enter a root")
    root = arguments.root.resolve()
    if not (root / "usr" / "bin" / "python3").exists():
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root]
        subprocess.run(command, check=True)
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    (root / "usr" / "bin" / "python").unlink(missing_ok=True)
    (root / "usr" / "bin" / "python").symlink_to("python3")
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    if arguments.wheels:
        shutil.copytree(arguments.wheels, root / "wheels", dirs_exist_ok=True)
        environment["PIP_FIND_LINKS"] = "/wheels"
    if arguments.certificates:
        shutil.copy(arguments.certificates, root / "certificates.pem")
        environment["PIP_CERT"] = "/certificates.pem"
    image = Image(root, environment)
    for name, text in instructions(REPOSITORY / "docker" / "cpu.Dockerfile"):
        execute(image, name, text)
    image.probe()
    print("the CPU image's steps work", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
