"""Builds the repository that serves a checkpoint on a particular GPU: `python -m build.gpu`.

__main__: the command behind `make repository`.
fit: the command that says what fits on a GPU.
planner: counts memory, and finds the settings that fit.
build: the steps of a build.
steps: runs steps, and skips those that are up to date.
configurations: the models' configurations for a GPU.
llm_arguments: the arguments of TensorRT-LLM.
quantise: quantises the text decoder with ModelOpt.
tensorrt_vision: builds and checks the vision tower's TensorRT plan.
frames: chunks of a real video, to check it with.
repository_files: writes the repository.
manifest: writes from what and for which machine it was built, and checks that.
"""
