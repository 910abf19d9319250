"""Benchmarks, as ratios: `python -m tests.bench`."""
