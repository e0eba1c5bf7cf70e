"""Compare how well MACs, parameters, a predictor or another runtime rank networks by latency.

    python benchmarks/latency_rank.py                   (30 networks, 4 runtimes, 8 minutes; 6 for a predictor)
    python benchmarks/latency_rank.py --quick           (6 networks, 2 runtimes, half a second each, no predictor)

The paper argues (Tan et al., MnasNet, section 1) that "FLOPS is often an inaccurate proxy" of latency. This benchmark
measures random members of a space in every runtime on this machine. Kendall's tau shows how well each proxy orders
them: 1 is the order of the measured latencies, 0 is chance. `measured again` is the tau of a second measurement, which
no proxy can exceed by much. Intervals are 95 %, by bootstrapping the networks.

The predictor comes from `mnas latency fit`; the benchmark fits it if its file is missing. The measured networks are not
among those that it was fitted on.
"""

import argparse
import math
import random
import sys
from pathlib import Path

import numpy as np

from mnas.arch import Arch
from mnas.export.render import render
from mnas.latency.devices.host import host_unit
from mnas.latency.latency import Latency, Setup
from mnas.latency.prediction.learned import held_out_scores, kendall_tau
from mnas.latency.prediction.predictor import Predictor, load_predictor
from mnas.latency.protocol import calibrate, make_reference, measure
from mnas.measure.fit import LatencyFitSettings, fit_latency
from mnas.nn.cost import cost
from mnas.space.named import load_space
from mnas.space.space import Space
from mnas.zoo.architectures import reference_arch

RUNTIMES = {
    "litert": "LiteRT, XNNPACK",
    "litert-builtin": "LiteRT without XNNPACK",
    "onnxruntime": "ONNX Runtime",
    "torch": "torch, eager",
}
CLASSES = 1000


def draw(space: Space, count: int, seed: int, excluded: set[str]) -> list[Arch]:
    """Return different random members, without those of `excluded` fingerprints."""
    chance, found = random.Random(seed), {}
    while len(found) < count:
        arch = space.decode([chance.randrange(len(d.choices)) for d in space.decisions])
        if arch.fingerprint not in excluded:
            found[arch.fingerprint] = arch
    return list(found.values())


def measured(archs: list[Arch], space: Space, runtime: str, input_size: int, budget_s: float) -> list[Latency]:
    """Measure all networks in one runtime, in random order."""
    setup = Setup(runtime=runtime)
    make_file = render(setup)
    reference = make_reference(reference_arch(space.reference_skeleton), "mobilenetv2", input_size, CLASSES, make_file)
    unit = host_unit()
    try:
        calibration = calibrate(unit, reference, setup)
        found: dict[int, Latency] = {}
        for number in random.Random(runtime).sample(range(len(archs)), len(archs)):
            model = make_file(archs[number], input_size, CLASSES)
            found[number] = measure(unit, model, reference, calibration, budget_s=budget_s)
            print(f"\r{runtime}: {len(found)} of {len(archs)}", end="", file=sys.stderr, flush=True)
    finally:
        unit.close()
    print(file=sys.stderr)
    return [found[number] for number in range(len(archs))]


def fitted(path: Path, space: str, input_size: int) -> Predictor:
    if not path.exists():
        fit_latency(
            LatencyFitSettings(space=space, input_size=input_size, out=path), progress=lambda _: None, say=print
        )
    return load_predictor(path)


def row(what: str, of: str, left: list[float], right: list[float], more: str = "") -> None:
    tau = kendall_tau(left, right)
    print(f"| {what} | {of} | {tau.value:.3f} | {tau.low:.3f} to {tau.high:.3f} | {more} |")


def spread(proxy: list[float], ratios: list[float]) -> str:
    """Return by how much latencies deviate from being proportional to the proxy."""
    logs = np.log(np.array(ratios) / np.array(proxy))
    return f"latency per unit differs by a factor of {math.exp(np.ptp(logs)):.2f}"


# The plot


def svg(panels: list[tuple[str, str, list[float], list[float]]], y_title: str) -> str:
    """Return panels of points side by side, each (title, x title, x, y), on logarithmic axes."""
    side, gap, margin = 320, 70, 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{len(panels) * (side + gap) + 20}" height="{side + 100}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for index, (title, x_title, xs, ys) in enumerate(panels):
        left, top = margin + index * (side + gap), 36
        parts.append(f'<g transform="translate({left} {top})"><rect width="{side}" height="{side}" fill="#f6f6f6"/>')
        parts.append(f'<text x="0" y="-12" font-weight="bold">{title}</text>')
        (x_low, x_high), (y_low, y_high) = bounds(xs), bounds(ys)
        for value in ticks(x_low, x_high):
            x = side * math.log(value / x_low) / math.log(x_high / x_low)
            parts.append(f'<path d="M{x:.1f} 0V{side}" stroke="#ddd"/>')
            parts.append(f'<text x="{x:.1f}" y="{side + 16}" text-anchor="middle">{value:g}</text>')
        for value in ticks(y_low, y_high):
            y = side * (1 - math.log(value / y_low) / math.log(y_high / y_low))
            parts.append(f'<path d="M0 {y:.1f}H{side}" stroke="#ddd"/>')
            parts.append(f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        for x_value, y_value in zip(xs, ys, strict=True):
            x = side * math.log(x_value / x_low) / math.log(x_high / x_low)
            y = side * (1 - math.log(y_value / y_low) / math.log(y_high / y_low))
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1f77b4" fill-opacity="0.7"/>')
        parts.append(f'<text x="{side / 2}" y="{side + 36}" text-anchor="middle">{x_title}</text>')
        parts.append(
            f'<text transform="translate(-40 {side / 2}) rotate(-90)" text-anchor="middle">{y_title}</text></g>'
        )
    return "\n".join([*parts, "</svg>", ""])


def bounds(values: list[float]) -> tuple[float, float]:
    return min(values) / 1.08, max(values) * 1.08


def ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5, 10, ... between the two, with 1.5, 3 and 7 if these are few."""
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [s * 10.0**e for e in range(-3, 6) for s in steps if low <= s * 10.0**e <= high]
        if len(found) > 3:
            break
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--space", default="mnasnet")
    parser.add_argument("--input-size", type=int, default=128)
    parser.add_argument(
        "--budget-s", type=float, default=3.0, help="largest time for each network in each runtime, in seconds"
    )
    parser.add_argument(
        "--predictor", type=Path, help="file of mnas latency fit (default: predictors/host-SPACE-SIZE.json)"
    )
    parser.add_argument("--plot", type=Path, help="write an SVG of latencies against MACs, params and predictions")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="6 networks, 2 runtimes, no predictor")
    options = parser.parse_args()
    if options.quick:
        options = argparse.Namespace(**{**vars(options), "networks": 6, "budget_s": 0.5})
    space, size = load_space(options.space), options.input_size
    path = options.predictor or Path("predictors") / f"host-{options.space}-{size}.json"
    predictor = None if options.quick else fitted(path, options.space, size)
    fitted_on = {space.decode(s.indices).fingerprint for s in predictor.samples} if predictor else set()
    archs = draw(space, options.networks, options.seed, fitted_on)
    runtimes = dict(list(RUNTIMES.items())[: 2 if options.quick else None])
    found = {runtime: measured(archs, space, runtime, size, options.budget_s) for runtime in runtimes}
    again = measured(archs, space, "litert", size, options.budget_s)
    report(archs, found, again, predictor, options)


def report(
    archs: list[Arch],
    found: dict[str, list[Latency]],
    again: list[Latency],
    predictor: Predictor | None,
    options: argparse.Namespace,
) -> None:
    costs = [cost(arch, options.input_size, CLASSES) for arch in archs]
    macs, params = [c.macs / 1e6 for c in costs], [c.params / 1e6 for c in costs]
    ratios = {runtime: [latency.ratio for latency in latencies] for runtime, latencies in found.items()}
    millis = [latency.latency_ms for latency in found["litert"]]
    print(f"\n{len(archs)} random members of {options.space} at {options.input_size} px, one thread\n")
    print("| ranked by | latency in | Kendall tau | 95 % CI | |\n|---|---|---|---|---|")
    for runtime, title in RUNTIMES.items():
        if runtime in ratios:
            row("MACs", title, macs, ratios[runtime], spread(macs, ratios[runtime]))
            row("params", title, params, ratios[runtime], spread(params, ratios[runtime]))
    panels = [("MACs", "million MACs", macs, millis), ("Parameters", "million parameters", params, millis)]
    if predictor is not None:
        guesses = [predictor.predict(arch) for arch in archs]
        scores = held_out_scores([g.ratio for g in guesses], ratios["litert"])
        held = sum(g.ratio_low <= r <= g.ratio_high for g, r in zip(guesses, ratios["litert"], strict=True))
        more = (
            f"mean error {100 * scores.mape.value:.1f} % "
            f"({100 * scores.mape.low:.1f} to {100 * scores.mape.high:.1f}), "
            f"worst {100 * scores.worst.value:.1f} %; {held}/{len(archs)} within their intervals"
        )
        row("predictor", RUNTIMES["litert"], [g.ratio for g in guesses], ratios["litert"], more)
        panels.append(("Predictor", "predicted ms", [g.latency_ms for g in guesses], millis))
    row("measured again", RUNTIMES["litert"], [latency.ratio for latency in again], ratios["litert"])
    for runtime, title in list(RUNTIMES.items())[1:]:
        if runtime in ratios:
            row(title, RUNTIMES["litert"], ratios[runtime], ratios["litert"], spread(ratios[runtime], ratios["litert"]))
    if options.plot:
        taus = [kendall_tau(xs, ys).value for _, _, xs, ys in panels]
        titled = [(f"{title}: tau {tau:.2f}", *rest) for (title, *rest), tau in zip(panels, taus, strict=True)]
        options.plot.write_text(svg(titled, "measured ms, LiteRT"))
        print(f"\nplot: {options.plot}")


if __name__ == "__main__":
    main()
