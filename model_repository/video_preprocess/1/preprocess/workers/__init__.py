"""Processes that read media, so that a bad file costs its own request only, and the reader that asks them.

allowance: the processor time and memory that a task may take
channel: messages between the stage and a worker
heap: the C library's heap, and memory that goes back to the system
machine: the cores, memory and file handles of this machine or container
pool: the workers, started and lent by turns
process: a worker's own side: the process that reads
reader: reads the media of one request, by the workers or out of the cache
serialise: what is known of a video, as bytes
shared_pictures: memory through which a worker hands over pictures
worker: the stage's side of one process
"""
