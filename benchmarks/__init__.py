"""How fast the store is, as ratios to a floor within one run: see `python -m benchmarks --help`."""
