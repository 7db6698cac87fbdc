"""Answers that follow a JSON schema or a regular expression.

compiler: compiles grammars, one after the other, in a thread of its own
trial: tries each in a process first, within limits
grammar: one answer's grammar
constraint: forbids tokens in the logits
"""
