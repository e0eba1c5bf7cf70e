"""The most used options of each command, and two examples, for its help."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Guide:
    """Examples, order and groups of the options in the help of a command."""

    examples: tuple[str, ...] = ()
    """Whole command lines."""
    first: tuple[str, ...] = ()
    """Options that `--help` shows, most used first; empty: all, for a command with few."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Heading -> options, in `--help-all`; other options appear under the group name of their dataclass."""


GUIDES: Mapping[str, Guide] = {
    "search": Guide(
        examples=(
            "mnas search --data photos --run runs/photos --trials 100",
            "mnas search --data photos --device pixel --target-latency-ms 8",
        ),
        first=(
            *("--data", "--run", "--trials", "--hours", "--device", "--target-latency-ms", "--space", "--epochs"),
            *("--workers", "--preset"),
        ),
        groups={
            "Space": ("--width", "--input-size", "--output-stride"),
            "Controller": ("--controller", "--candidates-per-update", "--seed", "--start-from"),
            "Objective": ("--reward", "--metric", "--alpha", "--beta", "--device-weights"),
            "Limits": ("--latency-limit", "--max-size-mb", "--max-memory-mb"),
            "Latency": (
                *("--devices", "--latency", "--predictor", "--latency-budget-s", "--latency-threads", "--fresh"),
            ),
        },
    ),
    "proxy-check": Guide(
        examples=(
            "mnas proxy-check --data photos",
            "mnas proxy-check --data photos --epochs 10 --try-epochs 2,5 --seeds 3",
        ),
        first=(
            *("--data", "--out", "--architectures", "--seeds", "--epochs", "--try-epochs", "--try-image-shares"),
            *("--try-input-sizes", "--space", "--workers"),
        ),
    ),
    "train": Guide(
        examples=(
            "mnas train runs/photos --top 5",
            "mnas train mnasnet-a1 --data photos --weights timm --epochs 20",
        ),
        first=(
            *("--data", "--out", "--weights", "--top", "--resume", "--preset", "--epochs", "--input-size"),
            "--accelerator",
        ),
    ),
    "report": Guide(examples=("mnas report runs/photos", "mnas report runs/photos --open")),
    "runs": Guide(examples=("mnas runs", "mnas runs experiments")),
    "export": Guide(
        examples=(
            "mnas export runs/photos#17 --to litert",
            "mnas export trained/mnasnet-a1-224px --to litert --int8 --data photos",
        ),
        first=(
            *("--to", "--out", "--overwrite", "--weights", "--int8", "--fp16", "--integer-io", "--softmax", "--data"),
            "--max-accuracy-loss",
        ),
    ),
    "predict": Guide(
        examples=(
            "mnas predict trained/mnasnet-a1-224px cat.jpg dog.jpg",
            "mnas predict model.onnx photos --class-file labels.txt --json",
        ),
        first=("--top", "--json", "--save", "--every", "--weights", "--class-file", "--input-size", "--mean", "--std"),
    ),
    "eval": Guide(
        examples=(
            "mnas eval trained/mnasnet-a1-224px --data photos",
            "mnas eval model.tflite --data photos --part all --save confusion.png",
        ),
        first=("--data", "--part", "--json", "--save", "--weights", "--class-file", "--class-order", "--data-dir"),
    ),
    "latency": Guide(
        examples=(
            "mnas latency mnasnet-a1 mobilenetv2",
            "mnas latency model.tflite --device pixel --budget-s 10",
        ),
        first=(
            *("--device", "--runtime", "--input-size", "--width-multiplier", "--threads", "--int8", "--budget-s"),
            *("--fresh", "--json"),
        ),
    ),
    "latency fit": Guide(
        examples=(
            "mnas latency fit --space mnasnet --input-size 224",
            "mnas latency fit --device pixel --samples 400",
        ),
    ),
    "detect check": Guide(
        examples=("mnas detect check --data cells", "mnas detect check --data cells --boxes paper --input-size 512"),
    ),
    "detect train": Guide(
        examples=(
            "mnas detect train efficientnet-lite0 --data cells --weights pretrained",
            "mnas detect train runs/photos#17 --data cells --input-size 512 --epochs 100",
        ),
        first=(
            *("--data", "--out", "--weights", "--input-size", "--boxes", "--resume", "--preset", "--epochs"),
            *("--batch-size", "--accelerator"),
        ),
    ),
    "detect eval": Guide(
        examples=(
            "mnas detect eval detectors/mnasnet-a1-320px --data cells",
            "mnas detect eval detector.tflite --data cells --save misses.jpg",
        ),
    ),
    "detect predict": Guide(
        examples=(
            "mnas detect predict detectors/mnasnet-a1-320px photos --save drawn",
            "mnas detect predict detector.tflite film.mp4 --every 10 --json",
        ),
    ),
    "detect export": Guide(
        examples=(
            "mnas detect export detectors/mnasnet-a1-320px --to litert --postprocess",
            "mnas detect export detectors/mnasnet-a1-320px --to litert --int8 --data cells",
        ),
        first=(*("--to", "--postprocess", "--score-threshold", "--int8", "--fp16", "--data", "--out", "--overwrite"),),
    ),
    "devices list": Guide(examples=("mnas devices list", "mnas devices list --devices lab/devices.toml")),
    "devices check": Guide(examples=("mnas devices check host", "mnas devices check pixel")),
    "devices calibrate": Guide(
        examples=("mnas devices calibrate host", "mnas devices calibrate pixel --sessions 10 --budget-s 10"),
    ),
    "bench": Guide(
        examples=(
            "mnas bench --path anb_dataset_jsons.tar.gz",
            "mnas bench --benchmark table --path table.csv --cost latency_ms --seeds 20",
        ),
        first=(
            *("--path", "--benchmark", "--device", "--controllers", "--seeds", "--trials", "--reward"),
            *("--workers", "--out"),
        ),
    ),
    "show": Guide(examples=("mnas show mnasnet-a1", "mnas show runs/photos#17 --save trial-17.svg")),
    "paper table3": Guide(
        examples=("mnas paper table3 --runtime none", "mnas paper table3 --runtime litert --device pixel"),
    ),
    "space": Guide(examples=("mnas space per-layer", "mnas space --parent efficientnet-lite0")),
    "demo": Guide(examples=("mnas demo", "mnas demo --trials 10 --run-dir runs/short")),
    "completion": Guide(
        examples=(
            "mnas completion bash > ~/.local/share/bash-completion/completions/mnas",
            "mnas completion fish > ~/.config/fish/completions/mnas.fish",
        ),
    ),
}
"""Name of a command -> its guide."""
