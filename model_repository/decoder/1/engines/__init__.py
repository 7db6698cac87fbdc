"""Engines that generate tokens for many sessions at once, and what they have in common.

create: the engine that config.pbtxt names
protocol: what sessions and engines say to each other
settings: the parameters of config.pbtxt
checkpoint: config.json and generation_config.json
sampling_parameters: how a request wants its answer generated
response_format: the form that an answer must have
admission: how long answers may be, who waits and who is refused
fair_queue: who is next for the KV cache
departures: when a refused request may come back
reservations: blocks counted for an engine whose executor hands them out itself
errors: the error that a caller sees
pytorch/, tensorrt_llm/: an engine each
"""
