"""The engines by their names in config.pbtxt."""

from __future__ import annotations

import importlib

from engines.protocol import Engine, Listener
from engines.settings import Settings

FACTORIES = {
    "pytorch": "engines.pytorch.factory",
    "tensorrt_llm": "engines.tensorrt_llm.factory",
}
"""Each has a `create_engine(settings, listener)`."""


def create_engine(settings: Settings, listener: Listener) -> Engine:
    """The engine that `settings` name. Raises ValueError naming a setting or a file that cannot be used.

    Only that engine is imported: each brings a framework along.
    """
    engine: Engine = importlib.import_module(FACTORIES[settings.engine]).create_engine(settings, listener)
    return engine
