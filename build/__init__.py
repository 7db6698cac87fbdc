"""Scripts around the model repository: what is served is assembled, compiled for a GPU and kept running here.

assemble: a model repository out of the stages and a checkpoint's files.
gpu: repositories for a particular GPU, and what fits on it.
serve: Triton under a supervisor, behind a gate.
demo_checkpoint: the small checkpoint that is trained here.
"""
