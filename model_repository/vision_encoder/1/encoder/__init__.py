"""The vision tower, run on one dense batch of temporal patches.

session: the exported tower in ONNX Runtime
chunk: the tensors of one encoding, checked
heap: settings of the C library's heap
"""
