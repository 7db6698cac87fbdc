"""One application in front of Triton: an OpenAI-compatible API at /v1 and the web page at /.

app: puts the application together
command: the command `qwen3-vl-front`
replaced: the commands `qwen3-vl-api` and `qwen3-vl-web`, for one release
settings: how the application is run: one set of settings and limits
services: everything that all requests use
owners: whose a request is, and how much this owner may ask
keys: API keys
cookies: the page's users, who have no key
asking: bodies of requests, read within bounds once it is known who asks
metrics: counters in Prometheus' format
errors: every error with its status, in OpenAI's form
video_options: the client library's video options, as fields of a request
secret: a secret of this installation, and the values derived from it
places: how much of one kind goes on at the same time for one owner

http/     HTTP in general
media/    media that come in and go out: uploads, URLs, lists of frames, pictures
openai/   the API
page/     the web page
"""
