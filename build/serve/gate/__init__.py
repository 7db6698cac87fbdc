"""The door in front of Triton: listens where clients come, and lets through what they need and Triton survives.

`settings` what it is told, `process` starts it, `__main__` runs it; `grpc_door`, `http_door` and `metrics_door` are its
ports; `methods`, `rules` and `inputs` say what is let through, `envelope` and `documents` read requests without being
filled by them; `calls` and `budget` bound what is held, `losses` ends what is lost with a stage.
"""
