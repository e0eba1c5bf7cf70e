"""The paper's Table 3: detectors on COCO, with their published numbers, our counts and latencies here.

COCO has 80 classes, whose ids go up to 90, and the published code for detection counts ids
(tensorflow/models, research/object_detection). So every detector is counted with both, and measured with 90.
"""

import functools
from collections.abc import Callable, Mapping

from mnas.detector import COCO_CLASSES, INPUT_SIZE, Detector, detector_on
from mnas.export.detector.random_detector import random_detector_file
from mnas.measure.result import ModelLatency
from mnas.nn.detection.cost import detector_cost
from mnas.paper.latency import PaperLatencies, PaperModel, measure_paper_models, ratio_between
from mnas.paper.published import ORIGINS, TABLE3, PublishedDetector
from mnas.paper.settings import PAPER_RUNTIMES, PaperRuntime, PaperSettings
from mnas.paper.ssd import SsdSize, ssd_cost, ssd_onnx
from mnas.paper.table import Column, PaperTable, TableCell, published_cell
from mnas.zoo.architectures import named_arch

Say = Callable[[str], None]
CLASSES, IDS = COCO_CLASSES, 90
BASE = "MnasNet-A1 + SSDLite"
"""Model that all ratios are multiples of."""
_BACKBONES = {
    "MobileNetV1 + SSDLite": "mobilenetv1",
    "MobileNetV2 + SSDLite": "mobilenetv2",
    BASE: "mnasnet-a1",
}
_VGG: dict[str, SsdSize] = {"SSD300": 300, "SSD512": 512}
"""Model -> side of its images, in pixels."""
_NO_LITERT = "mnas writes LiteRT files of its own networks only, and this one is torchvision's"
_NOT_BUILT = {
    "YOLOv2": "not built: torchvision and timm have no YOLOv2, and pytorchcv has only its backbone, Darknet-19"
}
_PUBLISHED, _SIZES, _TIMES = "published mAP on COCO, in percent", "size", "latency in ms, and as a ratio"
_COLUMNS = (
    Column(key="model", title="model", part=""),
    Column(key="published_map", title="mAP", part=_PUBLISHED),
    Column(key="published_map_small", title="small", part=_PUBLISHED),
    Column(key="published_map_medium", title="medium", part=_PUBLISHED),
    Column(key="published_map_large", title="large", part=_PUBLISHED),
    Column(key="published_origin", title="origin", part=_PUBLISHED),
    Column(key="published_params", title="params, published", part=_SIZES),
    Column(key=f"params_{CLASSES}_classes", title=f"{CLASSES} classes", part=_SIZES),
    Column(key=f"params_{IDS}_ids", title=f"{IDS} ids", part=_SIZES),
    Column(key="published_macs", title="MACs, published", part=_SIZES),
    Column(key=f"macs_{CLASSES}_classes", title=f"{CLASSES} classes", part=_SIZES),
    Column(key=f"macs_{IDS}_ids", title=f"{IDS} ids", part=_SIZES),
    Column(key="published_pixel1_ms", title="Pixel 1, published", part=_TIMES),
    Column(key="published_ratio", title="ratio", part=_TIMES),
    *(
        column
        for runtime, title in PAPER_RUNTIMES.items()
        for column in (
            Column(key=f"{runtime}_ms", title=f"{title}, here", part=_TIMES),
            Column(key=f"{runtime}_ratio", title="ratio", part=_TIMES),
        )
    ),
)


def table3(settings: PaperSettings, *, progress: Say, say: Say) -> PaperTable:
    """Return Table 3, with the latencies that `settings` ask for.

    Args:
        progress: called with a few words at the start of each step.
        say: called with a line for every event on the device.

    Raises:
        ValueError, MeasurementError, UnitError: as `mnas.paper.latency.measure_paper_models`.
    """
    latencies = PaperLatencies(outcomes={}, notes=())
    if settings.runtimes():
        models = [PaperModel(name=row.model, files=_files(row.model)) for row in TABLE3]
        latencies = measure_paper_models(settings, models, INPUT_SIZE, progress=progress, say=say)
    rows = tuple(
        {
            "model": TableCell(value=row.model, text=row.model),
            **_published(row),
            **_costs(row),
            **_times(row, latencies),
        }
        for row in TABLE3
    )
    return PaperTable(
        name="table3",
        title="Table 3: detectors on COCO",
        columns=_COLUMNS,
        rows=rows,
        notes=(*_notes(bool(settings.runtimes())), *latencies.notes),
    )


def _files(model: str) -> dict[PaperRuntime, Callable[[], bytes] | str]:
    if model in _NOT_BUILT:
        return dict.fromkeys(PAPER_RUNTIMES, _NOT_BUILT[model])
    if model in _BACKBONES:
        detector = _ssdlite(model)
        return {runtime: functools.partial(random_detector_file, detector, IDS, runtime) for runtime in PAPER_RUNTIMES}
    return {"litert": _NO_LITERT, "onnxruntime": functools.partial(ssd_onnx, _VGG[model], IDS)}


def _ssdlite(model: str) -> Detector:
    return detector_on(named_arch(_BACKBONES[model]), "ssdlite")


def _published(row: PublishedDetector) -> dict[str, TableCell]:
    """Return the cells of the published numbers."""
    precisions = {
        "published_map": row.mean_ap,
        "published_map_small": row.mean_ap_small,
        "published_map_medium": row.mean_ap_medium,
        "published_map_large": row.mean_ap_large,
    }
    base = next(each for each in TABLE3 if each.model == BASE)
    assert base.latency_ms is not None
    ratio = None if row.latency_ms is None else row.latency_ms / base.latency_ms
    return {
        **{key: published_cell(value, f"{value}", row.origin) for key, value in precisions.items()},
        "published_origin": TableCell(value=row.origin, text=row.origin),
        "published_params": published_cell(round(1e6 * row.params_m), f"{row.params_m:g}M", row.origin),
        "published_macs": published_cell(round(1e6 * row.macs_m), f"{row.macs_m / 1000:g}B", row.origin),
        "published_pixel1_ms": published_cell(row.latency_ms, f"{row.latency_ms}", row.origin),
        "published_ratio": published_cell(ratio, _ratio(ratio or 0), row.origin),
    }


def _costs(row: PublishedDetector) -> dict[str, TableCell]:
    """Return the cells of our counts, with their differences from the published ones."""
    cells: dict[str, TableCell] = {}
    for count, name in ((CLASSES, f"{CLASSES}_classes"), (IDS, f"{IDS}_ids")):
        cost = _cost(row.model, count)
        if isinstance(cost, str):
            cells |= {f"params_{name}": TableCell(reason=cost), f"macs_{name}": TableCell(reason=cost)}
            continue
        params, macs = cost
        shares = (params / (1e6 * row.params_m) - 1, macs / (1e6 * row.macs_m) - 1)
        cells[f"params_{name}"] = TableCell(value=params, text=f"{params / 1e6:.2f}M ({100 * shares[0]:+.1f} %)")
        cells[f"macs_{name}"] = TableCell(value=macs, text=f"{macs / 1e9:.4g}B ({100 * shares[1]:+.1f} %)")
    return cells


def _cost(model: str, num_classes: int) -> tuple[int, int] | str:
    """Return params and MACs, or the reason for their absence."""
    if model in _NOT_BUILT:
        return _NOT_BUILT[model]
    if model in _BACKBONES:
        whole = detector_cost(_ssdlite(model), num_classes)
        return whole.params, whole.macs
    return ssd_cost(_VGG[model], num_classes)


def _times(row: PublishedDetector, latencies: PaperLatencies) -> Mapping[str, TableCell]:
    """Return the cells of the latencies here."""
    cells: dict[str, TableCell] = {}
    for runtime in PAPER_RUNTIMES:
        outcome = latencies.outcomes.get((row.model, runtime), f"--runtime does not name {runtime}")
        base = latencies.outcomes.get((BASE, runtime))
        if not isinstance(outcome, ModelLatency):
            cells |= {f"{runtime}_ms": TableCell(reason=outcome), f"{runtime}_ratio": TableCell(reason=outcome)}
            continue
        ms = outcome.latency
        text = f"{ms.latency_ms:.4g} ({ms.low_ms:.4g}-{ms.high_ms:.4g})"
        cells[f"{runtime}_ms"] = TableCell(value=ms.latency_ms, text=text, low=ms.low_ms, high=ms.high_ms)
        if isinstance(base, ModelLatency):
            ratio = ratio_between(outcome, base)
            text = _ratio(ratio.value)
            if ratio.low < ratio.high:
                text += f" ({_ratio(ratio.low)}-{_ratio(ratio.high)})"
            cells[f"{runtime}_ratio"] = TableCell(value=ratio.value, text=text, low=ratio.low, high=ratio.high)
        else:
            cells[f"{runtime}_ratio"] = TableCell(reason=f"{BASE} has no latency in {PAPER_RUNTIMES[runtime]}")
    return cells


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.3g}"


def _notes(measured: bool) -> list[str]:
    origins = dict.fromkeys(row.origin for row in TABLE3)
    notes = [f"published numbers, {origin}: {ORIGINS[origin]}" for origin in origins]
    notes += [
        f"{CLASSES} classes, {IDS} ids: counted here for COCO's {CLASSES} classes, and for its ids, which go up to "
        f"{IDS}, as the published code for detection counts; in brackets the difference from the published number",
        "the published MACs of SSDLite have one decimal: 0.8B stands for 0.75B to 0.85B",
        "SSD300, SSD512: torchvision's modules on VGG16; the last maps of its SSD512 have 6, 4 and 1 pixels a side, "
        "those of the SSD paper 4, 2 and 1",
        f"ratio: multiple of the latency of {BASE}, published and in each runtime here",
    ]
    if measured:
        notes.append(
            f"here: measured with random weights and {IDS} ids, with decoding and selection of boxes as in "
            "mnas latency --head ssdlite; SSD300 and SSD512 without them; in brackets the 95 % confidence interval"
        )
    return notes
