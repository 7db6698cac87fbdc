"""Random requests against references, and accuracy against bars.

accuracy: the served demo checkpoint on fresh videos, against its bars
parity: random requests, served, and transformers
fuzz_engine: random schedules through the decoder's engine
fuzz_media: damaged files through stage 1
fuzz_api: the API and its own OpenAPI description
fuzz_hooks: what Schemathesis is told of it
"""
