"""Runs Triton on this machine: what it needs, how it is started, and who watches it."""
