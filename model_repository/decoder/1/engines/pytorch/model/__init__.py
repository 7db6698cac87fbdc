"""The text decoder: batches of tokens in, logits out.

registry: the models by `model_type`
text_model: Qwen3-VL's text decoder
batch: the model's input
attention: attention over the paged KV cache, a sequence at a time
table_attention: the same by block table, a Triton kernel
operations: what a layer computes between its matrix products
fused_operations: the same as Triton kernels
dense_mlp: the feed-forward part of a dense model's layers
linear: linear layers, dense and of 8 and 4 bits
rotary: interleaved M-RoPE
yarn: rotary frequencies for longer contexts
weights: the weights of all layers
tensors: a checkpoint's tensors by name
quantised_checkpoint: weights of published quantised formats
"""
