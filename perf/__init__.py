"""Measurements: benchmarks, load, attacks, and checks against references and bars."""
