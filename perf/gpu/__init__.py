"""Benchmarks on a GPU, with figures only where there is one.

engine: the PyTorch engine at the published shapes, against the card's own limits
vision: the vision tower in PyTorch, compiled and in ONNX Runtime
"""
