"""The server under load, and one page about it (perf/README.md).

__main__: a short version of every run
sweep: perf_analyzer: concurrency, Poisson arrivals, each stage alone
users: locust: users who behave like users
batching: long answers, one at a time and more at once
soak: thousands of requests, with flat memory, handles and KV blocks
overload: twenty times more requests than the server can answer
chaos: stages killed under load
sizing: the GPUs that a load needs
page: one HTML page of all results
charts: its charts
traffic: the target, and the ways to put load on it
readings: what is read of the server meanwhile
"""
