"""Run the paper's controller at the paper's scale: PPO, 8,000 trials on Accel-NASBench, published hyper-parameters.

    python benchmarks/ppo_paper_scale.py anb_dataset_jsons.tar.gz [--seeds 3] [--trials 8000] [--plot ppo.svg]

Tan et al., MnasNet (CVPR 2019), section 4.2, sample "about 8,000 models". Here each costs milliseconds, because top-1
after 16 epochs and latency on a ZCU102 are predicted from the benchmark's rows (docs/measurements/controllers.md). The
reward is `soft`, and T is the cost that 40 % of random members stay below.

The table lists, by number of trials and as mean over seeds with 95 % intervals: hypervolume (relative to that of 60,000
random members), best reward so far, mean reward of the last 200 trials, entropy of the policy in nats, and CPU
milliseconds for drawing, learning and the study in memory. Then follow the mean reward of the last thousand trials
against the best of as many random trials, and the number of trials that PPO needs for the best reward and the
hypervolume that the model-based controller reaches after 100 trials in batches of the same size.

Searches are cached. 3 seeds take about two minutes on two cores.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from mnas.bench.cache import Cache
from mnas.bench.contender import Contender, takes_reward
from mnas.bench.parallel import search_all
from mnas.bench.pool import draw_pool, interval, rewards
from mnas.bench.svg import svg
from mnas.evaluate.accel_nasbench import accel_nasbench
from mnas.folders import user_cache_dir
from mnas.objective import DEFAULT_WEIGHTS, Objective
from mnas.plot import BLUE, GREEN, GREY, RED, axis, layout_of

BATCH = 20  # as in NASNet's controller, which the hyper-parameters come from
WINDOW = 200
MODEL_BASED, ITS_TRIALS = "surrogate", 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, nargs="?", help="anb_dataset_jsons.tar.gz, the authors' split/ beside it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=8000)
    parser.add_argument("--device", default="latency_zcu102")
    parser.add_argument("--plot", type=Path, help="write an SVG of reward and entropy over time")
    options = parser.parse_args()
    if options.archive is None:
        print("skipped: the file anb_dataset_jsons.tar.gz is required (github.com/afzalxo/Accel-NASBench)")
        return
    benchmark = accel_nasbench(options.archive, options.device)
    print(*benchmark.notes, sep="\n")
    pool = draw_pool(benchmark)
    alpha, beta = DEFAULT_WEIGHTS["soft"]
    objective = Objective(form="soft", target_latency_ms=pool.target(0.4), alpha=alpha, beta=beta)

    def searches(controller: str, trials: int):
        given = objective if takes_reward(controller) else None
        contenders = [
            Contender(controller=controller, candidates_per_update=BATCH, seed=seed, objective=given)
            for seed in range(options.seeds)
        ]
        found = search_all(
            benchmark,
            contenders,
            trials,
            workers=os.cpu_count() or 1,
            cache=Cache(user_cache_dir() / "bench", benchmark),
            on_done=lambda contender, searched, cached: None,
        )
        return [found[contender] for contender in contenders]

    ppo, random = searches("ppo", options.trials), searches("random", options.trials)
    values = [rewards(objective, s.accuracies, s.costs) for s in ppo]
    report(ppo, values, pool, options.trials)
    best_random = [rewards(objective, s.accuracies, s.costs).max() for s in random]
    last = min(1000, options.trials)
    print(f"\nmean reward of PPO's last {last:,} trials {interval([v[-last:].mean() for v in values])}")
    print(f"best reward of {options.trials:,} random trials {interval(best_random)}")
    print(f"best reward of PPO {interval([v.max() for v in values])}")
    against(searches(MODEL_BASED, ITS_TRIALS), ppo, pool, objective)
    if options.plot:
        options.plot.write_text(svg([reward_figure(values, max(best_random)), entropy_figure(ppo)]))
        print(f"plot: {options.plot}")


def report(ppo, values, pool, trials: int) -> None:
    print("\n| trials | hypervolume | best reward | mean reward of the last 200 | entropy, nats | CPU ms a trial |")
    print("|---|---|---|---|---|---|")
    before = 0
    for mark in [m for m in (200, 500, 1000, 2000, 3000, 4000, 6000, 8000) if m <= trials]:
        columns = [
            interval([pool.ratio(s.accuracies[:mark], s.costs[:mark]) for s in ppo]),
            interval([v[:mark].max() for v in values]),
            interval([v[max(0, mark - WINDOW) : mark].mean() for v in values]),
            interval([s.entropies[mark // BATCH - 1] for s in ppo]),
            interval([s.ms[before:mark].mean() for s in ppo]),
        ]
        print(f"| {mark:,} | " + " | ".join(map(str, columns)) + " |")
        before = mark


def against(theirs, ppo, pool, objective) -> None:
    """Print how many trials PPO needs to reach a model-based search after 100 (mean over seeds), in whole batches."""

    def best_reward(searched) -> float:
        return float(rewards(objective, searched.accuracies, searched.costs).max())

    def hypervolume(searched) -> float:
        return float(pool.ratio(searched.accuracies, searched.costs))

    for name, value in (("best reward", best_reward), ("hypervolume", hypervolume)):
        goal = float(np.mean([value(searched) for searched in theirs]))
        needed = []
        for searched in ppo:
            marks = range(BATCH, len(searched.costs) + 1, BATCH)
            needed.append(next((m for m in marks if value(searched.first(m)) >= goal), None))
        shown = ", ".join("more" if n is None else f"{n:,}" for n in needed)
        print(f"{name} of {MODEL_BASED} after {ITS_TRIALS} trials: {goal:.3f}; PPO needs {shown} trials (by seed)")


def reward_figure(values, best_random: float):
    numbers = list(range(BATCH, len(values[0]) + 1, BATCH))
    by_batch = np.mean([v[: len(numbers) * BATCH].reshape(-1, BATCH).mean(1) for v in values], axis=0)
    so_far = np.mean([np.maximum.accumulate(v)[BATCH - 1 :: BATCH] for v in values], axis=0)
    lines = [
        ("mean reward of a batch", BLUE, by_batch.tolist()),
        ("best so far", RED, so_far.tolist()),
        ("best of random", GREY, [best_random] * len(numbers)),
    ]
    data = [line(name, colour, numbers, ys) for name, colour, ys in lines]
    return {"data": data, "layout": layout_of(axis("trials"), axis("soft reward"))}


def entropy_figure(ppo):
    entropies = np.mean([s.entropies for s in ppo], axis=0).tolist()
    numbers = [BATCH * (i + 1) for i in range(len(entropies))]
    layout = layout_of(axis("trials"), axis("entropy of the policy, nats"))
    return {"data": [line("entropy", GREEN, numbers, entropies)], "layout": layout}


def line(name: str, colour: str, xs, ys):
    style = {"color": colour, "width": 1.5}
    return {"type": "scatter", "mode": "lines", "name": name, "x": xs, "y": ys, "line": style}


if __name__ == "__main__":
    main()
