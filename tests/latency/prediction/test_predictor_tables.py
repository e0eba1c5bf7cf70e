"""The same predictor learns from a published table: Accel-NASBench's networks and devices (Ahmad et al., 2024).

The data is `anb_dataset_jsons.tar.gz` and `split/` of github.com/afzalxo/Accel-NASBench, in shared/data/anb beside the
project.
"""

import itertools
import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mnas.latency.prediction.learned import kendall_tau, learn
from mnas.latency.prediction.parts import parts_of_decisions

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "anb"
LEARNT = 800
"""Number of the 4,100 training networks to use; these are enough, and the rest takes minutes."""


def test_a_table_of_decisions_and_times_is_learnt():
    """The table has two blocks whose choices interact, a decision outside any block, and 1 % of noise."""
    draw = np.random.default_rng(0)
    every = [
        {"block0_e": e, "block0_k": k, "block1_k": other, "block1_se": se, "stem": stem}
        for e, k, other, se, stem in itertools.product((1, 4, 6), (3, 5), (3, 5), (False, True), ("a", "b"))
    ]

    def truth(row):
        block0 = row["block0_e"] * (1.0 if row["block0_k"] == 3 else 1.5)
        return 2.0 + block0 + (0.5 if row["block1_k"] == 5 else 0.2) * (2 if row["block1_se"] else 1)

    order = draw.permutation(len(every))
    seen, unseen = [every[i] for i in order[:32]], [every[i] for i in order[32:]]
    times = [truth(row) * math.exp(draw.normal(0, 0.01)) for row in seen]
    learned = learn([parts_of_decisions(row) for row in seen], times, [0.01] * len(seen), folds=4)
    found = learned.predict([parts_of_decisions(row) for row in unseen])
    missed = [abs(estimate.value / truth(row) - 1) for estimate, row in zip(found, unseen, strict=True)]
    assert np.mean(missed) < 0.015
    assert sum(e.low <= truth(row) <= e.high for e, row in zip(found, unseen, strict=True)) >= 14


@pytest.fixture(scope="module")
def accel_nasbench():
    """Return split -> (decisions, milliseconds on the ZCU102), in the authors' splits."""
    archive = FOLDER / "anb_dataset_jsons.tar.gz"
    if not archive.is_file():
        pytest.skip(f"Accel-NASBench is not at {archive}")
    with tarfile.open(archive) as tar:
        rows = {Path(m.name).name: json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")}
    tables = {}
    for split in ("train", "test"):
        names = [Path(path).name for path in json.loads((FOLDER / "split" / f"{split}_paths.json").read_text())]
        known = [rows[n] for n in names if rows[n]["platform_perf"]["latency_zcu102"]["latency_mean"] is not None]
        times = [row["platform_perf"]["latency_zcu102"]["latency_mean"] for row in known]
        tables[split] = [row["architecture"] for row in known], times
    return tables


def test_latencies_of_accel_nasbench_are_ranked(accel_nasbench):
    decisions, times = accel_nasbench["train"]
    networks = [parts_of_decisions(row) for row in decisions[:LEARNT]]
    learned = learn(networks, times[:LEARNT], [0.0] * LEARNT, folds=3)
    decisions, times = accel_nasbench["test"]
    found = learned.predict([parts_of_decisions(row) for row in decisions])
    assert kendall_tau([estimate.value for estimate in found], times).value >= 0.94
    assert learned.held_out.kendall_tau.low >= 0.94
    within = [e.low <= t <= e.high for e, t in zip(found, times, strict=True)]
    assert np.mean(within) >= 0.92
