"""Assembles a model repository out of the stages and a checkpoint's files.

repository: the assembly, and the settings that it writes.
published_checkpoint: finds a checkpoint and checks that it is complete.
checkpoint_config: a checkpoint's shape and weight files, as its own files describe them.
vision_tower: stage 2's network in PyTorch.
export_vision: writes it as ONNX.
checkpoint_factory: makes small random checkpoints.
checkpoint_tokenizer: makes their tokenizer.
"""
