"""The engines by their names in config.pbtxt."""

from __future__ import annotations

from engines.protocol import Engine, Listener
from engines.settings import Settings


def create_engine(settings: Settings, listener: Listener) -> Engine:
    """The engine that `settings` name. Raises ValueError naming a setting or a file that cannot be used.

    Only that engine is imported: each brings a framework along.
    """
    if settings.engine == "tensorrt_llm":
        from engines.tensorrt_llm import engine as tensorrt_llm_engine

        return tensorrt_llm_engine.create_engine(settings, listener)
    from engines.pytorch import engine as pytorch_engine

    return pytorch_engine.create_engine(settings, listener)
