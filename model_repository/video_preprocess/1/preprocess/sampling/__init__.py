"""Samplers: which frames of a video are looked at.

adaptive: as many frames as uniform sampling takes, where things happen
mentions: the times that a question names
samplers: the samplers that `video_options.sampler` accepts
spread: an order that is even however early it is left
"""
