"""For all tests."""

import os
import signal

import tests.support.torchvision_operators  # noqa: F401  before transformers

# Kernels for a GPU run on a CPU then. Triton reads it when it is imported.
os.environ["TRITON_INTERPRET"] = "1"


def pytest_configure() -> None:
    # In a shell's background SIGINT is ignored, and so it would be by every program that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
