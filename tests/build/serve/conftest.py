"""A repository of toy stages: the real configurations and contract, without a model."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

TOYS = Path(__file__).parent / "toy_stages"
CONFIGURATIONS = Path(__file__).parents[3] / "model_repository"


def assemble_toys(checkpoint: Path, destination: Path, settings: Mapping[str, str]) -> None:
    """Like `assemble` of `build.assemble.repository`, with toy stages and without a checkpoint."""
    for configuration in CONFIGURATIONS.glob("*/config.pbtxt"):
        model = configuration.parent.name
        (destination / model / "1").mkdir(parents=True)
        text = configuration.read_text()
        for name, value in settings.items():
            stage, parameter = name.split(".")
            if stage == model:
                text, found = re.subn(rf'("{parameter}" value: {{ string_value: )"[^"]*"', rf'\1"{value}"', text)
                assert found == 1, name
        (destination / model / "config.pbtxt").write_text(text)
        if (TOYS / f"{model}.py").exists():
            shutil.copy(TOYS / f"{model}.py", destination / model / "1" / "model.py")


@pytest.fixture(scope="session")
def toy_stages():
    return assemble_toys
