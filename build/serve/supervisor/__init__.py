"""Keeps a Triton server answering.

supervisor: watches the server and its stages, and repairs what breaks.
backoff: when to repair a thing that keeps breaking.
stopped: processes that a signal has stopped.
status: the server's state.
health: shows it at /ready.
"""
