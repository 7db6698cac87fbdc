"""The decoder's own checkpoint and engines."""

from decoder.conftest import checkpoint, harness

__all__ = ["checkpoint", "harness"]
