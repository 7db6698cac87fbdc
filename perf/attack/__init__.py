"""Attacks on a running stack, with honest clients beside them.

__main__: runs all attacks and prints what held
fuzz_tensors: `make fuzz-tensors`: wrong requests to every tensor of every model
table: the list of all attacks
expect: how an attack says what happened
field: what an attack is given: the stack, and what the others notice meanwhile
honest: clients who only ask questions, in a process of their own
stack: the stack that is attacked, one of our own or one that runs already
processes: what its processes take, and whether they still run
wire: HTTP and sockets as an attacker uses them
tensor_cases: tensors, and the ways in which they can be wrong
tensor_writing: random requests with such tensors
kinds: the attacks, by what they attack
"""
