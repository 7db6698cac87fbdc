"""An OpenAI-compatible HTTP API on top of the client library: `pip install qwen3-vl-client[api]`."""

from .app import create_app
from .settings import Settings

__all__ = ["Settings", "create_app"]
