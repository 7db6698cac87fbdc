"""Builds the vision tower's TensorRT plan for one GPU.

graph: from the exported graph to a strongly typed one of standard operators.
builder: from that to a TensorRT plan.
check: compares the TensorRT plan with ONNX Runtime.
"""
