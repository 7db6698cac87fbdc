"""Benchmarks on a CPU; each has a make target.

answers: right answers with the adaptive sampler at half the frames, and with uniform sampling
batching: eight requests at once, and transformers one after the other
context: one request of 262,144 tokens, and the decoder's memory
engine: the PyTorch engine, and transformers, on prompts and answers of mixed lengths
followup: a second question about a ten-minute video
ingest: stage 1 on long videos, and other readers
memory: the server's memory over a thousand requests
overlap: the first token when the stages work at the same time
quantisation: right answers with weights and a KV cache of fewer bits
sampling: the known events that samplers see
summaries: a video longer than the context, parts together and one by one
"""

import tests.support.torchvision_operators  # noqa: F401  before transformers
