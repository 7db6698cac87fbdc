"""The small checkpoint that is trained here, so that a machine without a GPU can show what the product does.

train: trains it, from the pool of videos to the exported files
evaluation: fresh videos with questions, and what the checkpoint loses without parts of them
export: writes and reads it as published checkpoints are
model: Qwen3-VL, written for training small
vocabulary: its tokenizer
attributes: the attributes of things as classes
draw_sample_video: draws the demo's video
world: what its videos show, and questions about them
initialisation: the weights that the decoder starts from
training: the steps of the training
checkpoint: the trained checkpoint
"""
