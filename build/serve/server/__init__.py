"""Triton: found, started, asked and ended.

prerequisites: checks what this machine must offer.
triton: finds or unpacks Triton, and makes its command line.
process: a Triton server and the processes of its stages.
concealed: starts a program whose secrets no process list shows.
held_locks: keeps a server alive when a stage dies that holds a lock.
access: the secrets of Triton's own APIs.
api: asks Triton over HTTP.
log_file: a log with a bound.
"""
