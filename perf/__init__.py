"""Measurements of the product: benchmarks, load, attacks, and checks against references and bars.

bench: benchmarks on a CPU, one file each
gpu: benchmarks on a GPU
load: the server under load, and the page about it
attack: attacks on a running stack
checks: random requests against references, and accuracy against bars
paced: stages that take a given time, without using the CPU
support: reports, set-up, and what benchmarks measure with
results: the figures of the last runs, as JSON
"""
