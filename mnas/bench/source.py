"""The options that name a benchmark, for every command that takes one."""

from dataclasses import dataclass
from pathlib import Path

from mnas.evaluate.benchmark import Benchmark

BENCHMARKS = ("accel-nasbench", "table")


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Choice of a benchmark. Raises ValueError for an unknown name."""

    benchmark: str = "accel-nasbench"
    """Benchmark: accel-nasbench, or table (any CSV or Parquet file with one column per decision, one for accuracy and
    one for cost)."""
    path: Path
    """File of the benchmark: anb_dataset_jsons.tar.gz for accel-nasbench, or the table. If the authors' folder split/
    is beside the archive, mnas uses its division into training and test networks."""
    device: str = "latency_zcu102"
    """Device of accel-nasbench, whose latency or inverse throughput is the cost: latency_zcu102, latency_vck190,
    throughput_a100, throughput_3090, throughput_tpuv2, throughput_tpuv3, throughput_zcu102, throughput_vck190."""
    accuracy: str = "accuracy"
    """Column of accuracies in a table."""
    cost: str = "cost"
    """Column of costs in a table; lower is better."""
    ignore: str = ""
    """Columns of a table that are not decisions, separated by commas."""
    percent: bool = False
    """Read the accuracies of a table as percentages, from 0 to 100."""
    space: str = ""
    """Search space of a table (mnasnet, or a TOML file); by default, the columns are the decisions, and the values in a
    column are its choices."""

    def __post_init__(self) -> None:
        if self.benchmark not in BENCHMARKS:
            raise ValueError(f"--benchmark must be one of {', '.join(BENCHMARKS)}, but got {self.benchmark!r}")
        if self.benchmark == "table" and self.device != BenchmarkOptions.device:
            raise ValueError(
                f"--device must not be given with --benchmark table, but got {self.device}; name the column of costs "
                f"with --cost"
            )

    def load(self) -> Benchmark:
        """Return the benchmark. Raises ValueError or OSError where it cannot be read."""
        from mnas.evaluate.accel_nasbench import accel_nasbench
        from mnas.evaluate.table import read_table
        from mnas.space.named import load_space

        try:
            self.path.stat()
        except FileNotFoundError:
            raise ValueError(f"--path must be a file, but {self.path} does not exist") from None
        if self.benchmark == "accel-nasbench":
            return accel_nasbench(self.path, self.device)
        return read_table(
            self.path,
            accuracy=self.accuracy,
            cost=self.cost,
            ignore=tuple(name for name in self.ignore.split(",") if name),
            percent=self.percent,
            space=load_space(self.space) if self.space else None,
        )
