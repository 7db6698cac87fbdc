"""The gate before Triton, a process of its own: it lets through what clients need and Triton survives.

settings: its settings, on a line of its standard input.
__main__: runs it.
grpc_door: the gRPC port.
http_door: the HTTP port and the metrics port.
methods: which calls and paths clients may use.
rules: which inference requests are let through.
inputs: which JSON values a model's inputs take.
envelope: reads a gRPC request without being filled by it.
documents: reads a JSON body without being filled by it.
stoppable: ids by which HTTP requests can be stopped.
forwarding: sends HTTP requests on to Triton.
calls: the gRPC calls that are open.
budget: bounds the bytes that are held.
losses: ends the requests that are lost with a stage.
"""
