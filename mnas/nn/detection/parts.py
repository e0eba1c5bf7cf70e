"""The parts of a detector at their places, from which its network, its costs and its files are built.

Sandler et al., "MobileNetV2" (CVPR 2018, arXiv:1801.04381), section 6.2: SSDLite replaces the 3x3 convolutions of SSD's
predictions by a depthwise 3x3 and a 1x1 convolution. Extra layers as in tensorflow/models, research/object_detection.

A map of the backbone is the last result at its output stride. Where the next layer begins with an expansion at that
stride, as all layers of MnasNet and MobileNetV2 do, this is the result of the expansion with its activation, as SSDLite
prescribes. A layer whose first convolution has the stride (`sepconv`, `conv`, `fused`) leaves no such result, so the
map is the layer's input, as in SSDLite on MobileNetV1. The map at output stride 32 is the result of the last layer, or
of the 1x1 head where the average pool follows it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mnas.detector import OUTPUT_STRIDE, Detector
from mnas.ops import Convolution, Mean, Shape, Visit

_FINEST_STRIDE = 8


@dataclass(frozen=True)
class Tap:
    """The place of a map inside the backbone's layers."""

    layer: int
    """Index in `arch.layers` of the layer that halves the map."""
    parts: int
    """Number of that layer's parts before the map; 0: the map is the layer's input."""
    source: str
    """Name of the part whose result is the map, such as `block6.0.expand`."""


def taps(detector: Detector) -> tuple[Tap, ...]:
    """Return the places of the backbone's maps at output stride 8, where the detector has one, and 16."""
    arch = detector.arch
    first = _FINEST_STRIDE if detector.has_stride_8 else 2 * _FINEST_STRIDE
    stride, source, places = arch.stem_stride, "stem", []
    for index, layer in enumerate(arch.layers):
        names = [f"{layer.name}.{part.name}" for part in layer.parts]
        if layer.stride == 2 and first <= stride < OUTPUT_STRIDE:
            strided = [isinstance(part, Convolution) and part.stride == 2 for part in layer.parts].index(True)
            places.append(Tap(index, strided, names[strided - 1] if strided else source))
        stride, source = stride * layer.stride, names[-1]
    return tuple(places)


def backbone_visits(detector: Detector) -> Iterator[Visit]:
    """Yield the backbone's parts in order of computation, up to the last features."""
    for visit in detector.arch.visit(detector.input_size):
        if isinstance(visit.part, Mean):
            return
        yield visit


def extra_layer(inputs: int, outputs: int) -> tuple[Convolution, ...]:
    """Return the convolutions of an extra layer, which halves a map: 1x1 to half the outputs, depthwise 3x3, 1x1."""
    inside = outputs // 2
    return (
        Convolution("reduce", inputs, inside, activation="relu6"),
        Convolution("depthwise", inside, inside, 3, 2, depthwise=True, activation="relu6"),
        Convolution("expand", inside, outputs, activation="relu6"),
    )


def prediction(inputs: int, outputs: int) -> tuple[Convolution, ...]:
    """Return the convolutions that predict `outputs` values at each pixel of a map."""
    return (
        Convolution("depthwise", inputs, inputs, 3, depthwise=True, activation="relu6"),
        Convolution("output", inputs, outputs, norm=False),
    )


def predicted(detector: Detector, num_classes: int) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Return for each map the names and the numbers of channels of its two predictions, `classes` and `offsets`."""
    return tuple((("classes", count * (1 + num_classes)), ("offsets", count * 4)) for count in detector.boxes.counts)


def map_channels(detector: Detector) -> tuple[int, ...]:
    """Return the number of channels of each map."""
    shapes = {visit.name: visit.output_shape for visit in backbone_visits(detector)}
    last = list(shapes.values())[-1]
    return (*(shapes[tap.source][0] for tap in taps(detector)), last[0], *detector.extra_filters)


def detector_visits(detector: Detector, num_classes: int) -> Iterator[Visit]:
    """Yield all parts in order of computation.

    After the backbone follow the extra layers (`extra.1.reduce`, ...), and for each map its predictions
    (`predict.1.classes.depthwise`, ...). A prediction (C, H, W) has the values of a pixel's boxes one after the other.
    """
    maps: list[tuple[str, Shape]] = []
    shapes: dict[str, Shape] = {}
    source = ""
    for visit in backbone_visits(detector):
        yield visit
        source, shapes[visit.name] = visit.name, visit.output_shape
    maps = [(name, shapes[name]) for name in (*(tap.source for tap in taps(detector)), source)]
    for number, filters in enumerate(detector.extra_filters, 1):
        before, shape = maps[-1]
        visits = list(_chain(f"extra.{number}", extra_layer(shape[0], filters), before, shape))
        yield from visits
        maps.append((visits[-1].name, visits[-1].output_shape))
    for number, ((before, shape), predictions) in enumerate(
        zip(maps, predicted(detector, num_classes), strict=True), 1
    ):
        for name, outputs in predictions:
            yield from _chain(f"predict.{number}.{name}", prediction(shape[0], outputs), before, shape)


def _chain(layer: str, parts: tuple[Convolution, ...], source: str, shape: Shape) -> Iterator[Visit]:
    for part in parts:
        name, output = f"{layer}.{part.name}", part.output_shape(shape)
        yield Visit(name, layer, part, source, shape, output)
        source, shape = name, output
