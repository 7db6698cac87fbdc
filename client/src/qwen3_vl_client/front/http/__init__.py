"""Everything about HTTP that does not depend on what is served.

serving: serves an app within bounds
protocol: one connection, with bounds on heads, on slow senders and on slow readers
connections: all connections of a server, their bounds, and which is closed for another
paces: how slow a sender or a reader may be
turns: begins requests a few at a time
handles: makes file handles available for as many connections
quiet: lets a log line that repeats through once a minute
refusals: a request that is refused, and why
hosts: which Host is answered, and from which origins state may be changed
headers: tells a browser how it may use a response
bodies: JSON bodies within bounds, read piece by piece, parsed beside the event loop
rates: how often one caller may ask, and how many requests run at the same time
disconnects: clients that go away
sweeping: work that repeats, whatever fails

`serving` and the modules that it imports need uvicorn only.
"""
