"""The server under load, and the requests that are sent to it.

target: the server, one of our own or one that runs already
workload: videos and requests of the kinds that users send
driver: closed and open loops of requests, with the client library
locustfile: users who behave like users, for locust
steady: users of one kind, for locust
scenarios: the requests of perf_analyzer
analyzer: runs perf_analyzer
alone: a server whose stages can be asked alone
stages: doubles of the stages beside the one that is asked
"""
