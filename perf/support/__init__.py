"""Tools that the other rooms measure and report with.

report: a table, figures against their bars, and JSON
setup: a benchmark's command line, random checkpoint, server and client
memory: the memory of processes
limits: the least time that a CPU needs for a request
clips: the video files of the benchmarks, with their known events
scenes: what these files show
ingest: stage 1 on one video, in a process of its own
peers: other readers, run in an environment of their own
peer: one of them on one video
"""
