"""What `engines` builds for the CPU profile is served by the real server."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import tritonclient.grpc
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from build.gpu.__main__ import main
from build.gpu.manifest import check_manifest, this_machine
from tests.support import wire
from tests.support.serving import Server


def test_a_cpu_build_answers(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--gpu", "cpu", "--model", str(checkpoint), "--output", str(tmp_path), "--context", "4096"]
    monkeypatch.setattr("sys.argv", ["engines", *arguments])
    assert main() == 0
    built = tmp_path / "repository"
    check_manifest(built, this_machine())

    def place(_: Path, destination: Path, settings: Mapping[str, str]) -> None:
        shutil.copytree(built, destination, dirs_exist_ok=True)
        for setting, value in settings.items():
            model, name = setting.split(".")
            path = destination / model / "config.pbtxt"
            config = text_format.Parse(path.read_text(), ModelConfig())
            config.parameters[name].string_value = value
            path.write_text(text_format.MessageToString(config))

    with Server(checkpoint, assemble=place) as server:
        client = tritonclient.grpc.InferenceServerClient(server.grpc_url)
        config = client.get_model_config("decoder").config
        assert config.parameters["context_length"].string_value == "4096"
        answer = wire.ask(server.grpc_url, wire.question("Hello", sampling={"max_tokens": 4}))
        assert answer.usage["completion_tokens"] > 0
