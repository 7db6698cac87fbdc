"""The OpenAI-compatible API at /v1.

chat: `/v1/chat/completions`
chat_request: the body of a chat completion
chat_response: chat completions and their chunks
answering: one answer while it is made
long_videos: videos that become notes because the context has no room for them
video_kwargs: which frames a request asks for, in vLLM's words and in the server's
summaries: `/v1/summaries`
files: `/v1/files`
models: `/v1/models`
operations: `/health` and `/metrics`
events: server-sent events
description: the OpenAPI description
"""
