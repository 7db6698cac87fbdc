"""The paged KV cache: its memory, its blocks, and what they keep for later prompts.

kv_cache: the memory of all layers
layer_cache: one layer's keys or values, in full or less precision
placement: where a sequence's keys and values lie
block_manager: which blocks are free
block_tables: the sequences' blocks on the device
block_keys: what the tokens of a sequence stand for
prefix_cache: blocks that are kept and shared
"""
