"""What the API and the page share: everything that happens before and around a request.

    connections.py   how an app is served: bounds on connections, on heads, on slow senders and slow readers
    paces.py         how slow a sender or a reader may be
    turns.py         requests begin a few at a time
    handles.py       file handles for as many connections
    quiet.py         a log line that repeats comes once a minute
    refusals.py      a request that is refused, whatever the form of the answer
    hosts.py         which Host is answered, and from which origins state may be changed
    headers.py       what a browser may do with a response
    bodies.py        JSON bodies within bounds, read piece by piece, parsed beside the event loop
    rates.py         how often, and how many at the same time
    secret.py        a secret of this installation, and what is derived from it
    sweeping.py      work that repeats, whatever fails
    disconnects.py   clients that go away
    storing.py       what arrives becomes an upload
    command.py       the options that both commands have

`connections.py` and what it imports need uvicorn only.
"""
