"""The PyTorch engine: runs wherever PyTorch does, and is the reference that other engines are compared with.

factory: an engine from settings
engine: one thread that admits, has steps computed and reports
runner: the model on its device
scheduler: who computes what in the next step
prefill_cost: the cost of a piece of a prompt
decode_steps: decode steps as CUDA graphs
sampler: the next token of each sequence
work: the work of a step, and its batch
sequence: one session inside the engine
prompt: the part of a prompt that has arrived and is not in the KV cache
token_counts: the tokens that penalties are about
transfer: tensors between host and device
grammar/: answers that follow a grammar
model/: the text decoder
cache/: the paged KV cache and its prefix cache
"""
