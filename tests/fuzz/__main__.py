"""Fuzz the readers of foreign data: python -m tests.fuzz --seconds 300 --seed N [--target png] [--cases N]."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (
    HERE,
    HERE.parent,
    HERE.parent / "study",
    HERE.parent / "report",
    HERE.parent / "latency",
    HERE.parents[1],
):
    sys.path.insert(0, str(folder))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # children are forked, and threads do not survive a fork


def main() -> int:
    """Print a table of the targets and all findings, and return the exit code: 1 for a finding."""
    options = _options()
    from engine import Outcome, fuzz
    from targets import TARGETS

    _import_once()

    names = options.target or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        sys.exit(f"--target must be one of {', '.join(TARGETS)}, but got {unknown[0]}")
    with tempfile.TemporaryDirectory(prefix="mnas-fuzz-") as temporary:
        kept = Path(options.keep or temporary)
        kept.mkdir(parents=True, exist_ok=True)
        found = {name: Outcome() for name in names}
        began = time.monotonic()
        until = began + options.seconds if options.cases is None else float("inf")
        turn, turns = 0, 0
        while turn < turns or not turn:  # in turns, so that each target gets its share of the time
            turns = 1 if options.cases is not None else turn + 2
            for name in names:
                share = TARGETS[name].share
                cases = max(2, round((options.cases or 50) * share))
                outcome = fuzz(name, TARGETS[name], seed=options.seed, first=turn * cases, cases=cases, until=until,
                               folder=kept)  # fmt: skip
                found[name].cases += outcome.cases
                found[name].kinds += outcome.kinds
                found[name].findings += outcome.findings
                if options.verbose:
                    print(
                        f"{time.monotonic() - began:.0f} s: {name}, {outcome.cases} cases", file=sys.stderr, flush=True
                    )
            turn += 1
            if time.monotonic() >= until:
                break
        for work in kept.glob("work-*"):
            __import__("shutil").rmtree(work, ignore_errors=True)
        return _report(found, options.seed, bool(options.keep))


def _import_once() -> None:
    """Import slow modules before children are forked; none of them starts a thread."""
    import torch

    import mnas.cli.devices
    import mnas.cli.show
    import mnas.evaluate.table
    import mnas.latency.prediction.predictor
    import mnas.nn.pretrained
    import mnas.predict.network
    import mnas.report.html  # noqa: F401

    torch.set_num_threads(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="total time, unless --cases is given")
    parser.add_argument("--cases", type=int, help="cases of each target, without a time limit")
    parser.add_argument("--seed", type=int, default=0, help="random seed of all inputs")
    parser.add_argument("--target", action="append", help="run only this target (can be repeated)")
    parser.add_argument("--verbose", action="store_true", help="print each finished target on stderr")
    parser.add_argument("--keep", help="folder for the inputs of findings")
    return parser.parse_args()


def _report(found: dict[str, "Outcome"], seed: int, kept: bool) -> int:  # noqa: F821
    print(f"{'target':<20} {'cases':>6}  findings  outcomes")
    for name, outcome in found.items():
        kinds = ", ".join(f"{kind} {count}" for kind, count in outcome.kinds.most_common(5))
        print(f"{name:<20} {outcome.cases:>6}  {len(outcome.findings):>8}  {kinds}")
    findings = [finding for outcome in found.values() for finding in outcome.findings]
    for finding in findings:
        where = f"; kept as {finding.file}" if kept else "; --keep FOLDER keeps its input"
        print(f"FINDING {finding.target} seed {seed} case {finding.number}: {finding.what}{where}")
    print(f"{sum(o.cases for o in found.values())} cases, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
