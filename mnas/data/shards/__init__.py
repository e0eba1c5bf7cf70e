"""WebDataset tar shards as a data set: read in batches, and written."""

from mnas.data.shards.batches import ShardBatches, write_shards

__all__ = ["ShardBatches", "write_shards"]
