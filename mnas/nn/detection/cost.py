"""Parameters and multiply-accumulates of a detector, counted as in mnas.nn.cost, without building a network."""

from dataclasses import replace
from typing import Literal

from mnas.detector import Detector
from mnas.nn.cost import Cost, CostRow, describe, merged_rows, part_rows
from mnas.nn.detection.parts import detector_visits

DetectorPart = Literal["backbone", "extra", "predict"]


def detector_cost(detector: Detector, num_classes: int) -> Cost:
    """Return params and MACs of every convolution of a detector for an image of its input size.

    Args:
        num_classes: number of classes without the background.

    Raises:
        ValueError: num_classes is below 1.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be 1 or more, but got {num_classes}")
    return Cost(tuple(row for visit in detector_visits(detector, num_classes) for row in part_rows(visit)))


def by_detector_layer(detector: Detector, whole: Cost) -> tuple[CostRow, ...]:
    """Return the rows of `whole`, the cost of `detector`, summed by stem, layer, head, extra layer and map.

    The output of a map (`predict.1`) has the channels of all its predictions.
    """
    ops = {layer.name: describe(layer) for layer in detector.arch.layers}
    ops |= {f"extra.{number}": "extra s2" for number in range(1, len(detector.extra_filters) + 1)}
    ops |= {f"predict.{number}": f"{count} boxes" for number, count in enumerate(detector.boxes.counts, 1)}
    merged = []
    for row in merged_rows(whole, ops):
        outputs = [
            r.output_shape[0] for r in whole.rows if r.name.startswith(f"{row.name}.") and r.name.endswith("output")
        ]
        merged.append(replace(row, output_shape=(sum(outputs), *row.output_shape[1:])) if outputs else row)
    return tuple(merged)


def by_detector_part(whole: Cost) -> dict[DetectorPart, tuple[int, int]]:
    """Return params and MACs of the backbone, the extra layers and the predictions of a detector's cost."""
    sums: dict[DetectorPart, tuple[int, int]] = {"backbone": (0, 0), "extra": (0, 0), "predict": (0, 0)}
    for row in whole.rows:
        first = row.name.partition(".")[0]
        part: DetectorPart = "extra" if first == "extra" else "predict" if first == "predict" else "backbone"
        sums[part] = (sums[part][0] + row.params, sums[part][1] + row.macs)
    return sums
