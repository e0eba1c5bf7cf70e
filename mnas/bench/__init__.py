"""Searches on benchmarks, compared: what `mnas bench` runs."""
