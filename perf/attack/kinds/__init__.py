"""The attacks, each in the table of `perf.attack.table` once its file is imported.

control: Triton's HTTP and gRPC ports: what controls the server
tensors: Triton's ports: tensors that lie, stages called directly
connections: every port: connections that are held, heads and bodies that do not end
requests: the API and the page: bodies, origins, hosts, cookies, keys
media: the API and the page: files that cost time or memory
hostile_media: makes these files
machine: another user of the machine, and a full disk
oracle: what one owner learns about another from times and cached tokens
"""
