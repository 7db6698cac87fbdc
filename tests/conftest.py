"""For all tests."""

import signal


def pytest_configure() -> None:
    # In a shell's background SIGINT is ignored, and so it would be by every program that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
