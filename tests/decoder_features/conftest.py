"""The decoder's own checkpoint and engines."""

from tests.decoder.conftest import checkpoint, harness

__all__ = ["checkpoint", "harness"]
