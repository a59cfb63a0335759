"""Camora against its peers and against the raw limit: `python -m benchmarks run`."""
