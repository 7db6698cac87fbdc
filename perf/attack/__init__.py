"""Attacks on a running stack, with honest clients beside them.

__main__.py       the command: runs all attacks and prints what held
table.py          what an attack is, and the list of all
stack.py          the stack that is attacked: one of our own, or one that runs already
processes.py      what its processes take, and whether they still run
honest.py         clients who only ask questions; a process of their own
field.py          what an attack is given: the stack, and what the others notice meanwhile
wire.py           HTTP and sockets as an attacker uses them
hostile_media.py  files that cost whoever reads them
control.py        Triton's HTTP and gRPC ports: what controls the server
tensors.py        Triton's ports: tensors that lie, stages called directly
connections.py    every port: connections that are held, heads and bodies that do not end
requests.py       the API and the page: bodies, origins, hosts, cookies, keys
media.py          the API and the page: files that cost time or memory
machine.py        another user of the machine, and a full disk
oracle.py         what one owner learns about another from times and cached tokens
fuzz_tensors.py   `make fuzz-tensors`: every tensor of every model
tensor_cases.py   its cases
"""
