"""Sessions: chunks of a prompt in, text out; one thread owns them all.

inbox: that thread, and the messages through which everyone else talks to it
session: the life of one session
chunk: what stages 1 and 2 send, checked
ordering: chunks in the order in which they were sent
intake: how much of a planned prompt has come
credits: the pipe that lets stage 1 send more
signatures: which chunks come from stage 1
features: stage 2's features, taken over from Triton
answer: text, progress and the end, as responses
detokenizer: token ids to text
usage: what a request cost
reply: the way to the client
failure: the error that ends a session
metrics: what an operator sees
"""
