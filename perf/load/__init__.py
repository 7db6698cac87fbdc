"""What the server holds: perf_analyzer, locust, long and hard runs, and one page about them (perf/README.md)."""
