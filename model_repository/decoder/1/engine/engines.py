"""The engines by their names in config.pbtxt."""

from __future__ import annotations

from engine.protocol import Engine, Listener
from engine.settings import Settings


def create_engine(settings: Settings, listener: Listener) -> Engine:
    """The engine that `settings` name. Raises ValueError naming a setting or a file that cannot be used.

    Only that engine is imported: each brings a framework along.
    """
    if settings.engine == "tensorrt_llm":
        from engine.tensorrt_llm import tensorrt_llm_engine

        return tensorrt_llm_engine.create_engine(settings, listener)
    from engine.pytorch import pytorch_engine

    return pytorch_engine.create_engine(settings, listener)
