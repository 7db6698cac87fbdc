"""Finds what fits on a GPU: exact bytes of tensors and KV cache, bounds for the rest, and the settings that follow.

planning: from a model, a profile and a wish to a fit or a refusal.
profiles: GPUs, from profiles.json.
models: checkpoints and published sizes, from published.json.
weights: bytes of tensors in each precision.
memory: bytes of everything else.
vision_profiles: the optimisation profiles of the vision tower's TensorRT plan.
report: fits as text and as tables.
"""
