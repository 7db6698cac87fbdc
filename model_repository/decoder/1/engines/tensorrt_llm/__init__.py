"""The engine on NVIDIA TensorRT-LLM: its executor batches and pages, ours hands it packed rows instead of pixels.

Tested against a double of TensorRT-LLM's interface; it has not met the real one, which needs a GPU.
"""
