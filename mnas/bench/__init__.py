"""Comparison of searches on benchmarks, for `mnas bench`."""
