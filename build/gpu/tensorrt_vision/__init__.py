"""The vision tower as a TensorRT plan: a strongly typed graph of standard operators, built for one GPU, and checked."""
