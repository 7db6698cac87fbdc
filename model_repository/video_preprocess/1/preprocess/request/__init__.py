"""A request, checked: its inputs, its messages and its options.

bounds: bounds on a request's size before it is parsed, and on the bytes of all requests together
messages: the conversation, of text parts and attached media
options: `video_options`
request: inputs become a request
"""
