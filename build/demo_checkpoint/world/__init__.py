"""The world of the demo checkpoint's videos, and questions about it.

world: scripts of scenes, from which all else follows
drawing: their frames
video: their files
questions: questions about a video, and the rule that judges an answer
wording: how both are worded, in English and Chinese
"""
