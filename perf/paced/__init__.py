"""Stages 2 and 3 as a device's clock would have them: each chunk takes its time, without using the CPU.

The files here take the place of `encoder/session.py` and `engines/create.py` in an assembled repository; the rest of
both stages is the real one. What they need to know comes by environment variables, which Triton hands on.
"""
