"""What fits on a GPU: exact bytes of tensors and KV cache, bounds for the rest, and the settings that follow."""
