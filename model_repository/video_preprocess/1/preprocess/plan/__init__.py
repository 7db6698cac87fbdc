"""The plan of a request: which frames are shown, at which size, and the whole prompt, before anything is decoded.

captions: the subtitle lines that the prompt has room for
digests: names of the temporal patches, for stage 3's prefix cache
overview: the plan and the changes of each video, for a request that asks for nothing more
plan: makes the plan, and fits it into the context
positions: the M-RoPE positions of the tokens
prompt: the chat template, timestamps and pad tokens
resize: how large pictures become, and the resizing
selection: the frames and size of one video or image
tokens: the tokens of a text, a piece at a time
"""
