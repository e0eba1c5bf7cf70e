"""What is known of a candidate as soon as it is named or drawn."""

import hashlib
from typing import Any

from mnas.architecture import Architecture
from mnas.nn.cost import cost
from mnas.search.problem import Plan, Problem


def trial_seed(seed: int, number: int) -> int:
    """The seed of everything random in the evaluation of a trial (-1, -2, ...: the references)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")


def candidate_facts(arch: Architecture, number: int, problem: Problem, plan: Plan) -> dict[str, Any]:
    """The user attributes that trial `number` is stored with."""
    costs = cost(arch, problem.input_size, problem.num_classes)
    return {
        "arch": arch.to_dict(),
        "fingerprint": arch.fingerprint,
        "params": costs.params,
        "macs": costs.macs,
        "size_bytes": problem.size_bytes(arch),
        "seed": trial_seed(plan.seed, number),
    }
