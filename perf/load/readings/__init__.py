"""Readings of a server under load.

metrics: Triton's and the decoder's counters
watch: memory, handles and KV blocks of its processes
trend: whether a series of readings grows
knee: the concurrency from which more gives only longer waits
"""
