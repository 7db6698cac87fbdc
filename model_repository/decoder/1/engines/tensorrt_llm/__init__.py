"""The engine on NVIDIA TensorRT-LLM: its executor batches and pages, ours hands it packed rows instead of pixels.

Tested against a double of TensorRT-LLM's interface; it has not met the real one, which needs a GPU.

factory: an engine from settings and llm.json
engine: sessions, and one event loop that submits prompts and hears their answers
collected: a prompt until it is whole
handover: what a prompt's request consists of
sampling: sampling parameters in TensorRT-LLM's words
support: what the installed version can take
"""
