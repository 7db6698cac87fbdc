"""The command `qwen3-vl`.

cli: the command, and `qwen3-vl ask`
summarize: `qwen3-vl summarize`
commands: the options that they share, and their exit codes
display: progress and timings on stderr
"""
