"""Serves a repository with Triton on this machine: `python -m build.serve`.

__main__: the command behind `make serve`.
demo: the command behind `make demo`.
serving: checks the machine, assembles or checks a repository, and starts its deployment.
deployment: a server that runs: Triton under its supervisor, behind the gate.
doors: the options that say where it listens and what the gate lets through.
front: a program in front of it.
gate_keeper: keeps the gate open.
gate_process: starts the gate, and ends it.
gate: the process before Triton that clients speak to.
supervisor: keeps Triton answering.
server: Triton itself, and what it needs.
"""
