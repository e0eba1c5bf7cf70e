"""Write a detector as an ONNX file, which gives all boxes, or selects them by NonMaxSuppression.

Input `image`, float32 of shape (N, 3, S, S), normalised. The file of all boxes takes any batch and has two outputs, as
the LiteRT file: `boxes` (N, A, 4), left, top, right and bottom as shares of the image, and `scores` (N, A, C). A file
with `Suppression` takes one image and gives its best objects, best score first, with zeros after the last one: `boxes`
(1, M, 4), `labels` (1, M) from 0, `scores` (1, M) and their number, `count` (1,).
"""

from typing import Any

import torch
from torch import Tensor, nn

from mnas import digests
from mnas.detector import DetectorMetadata, Suppression, exported_json
from mnas.export.onnx import onnx_file, onnx_model
from mnas.nn.detection.decoding import CODER
from mnas.nn.detection.network import DetectorNetwork, require_metadata

_SELECTION = """
selection (float[1,{boxes},4] all_boxes, float[1,{boxes},{classes}] all_scores) =>
    (float[1,{most},4] boxes, int64[1,{most}] labels, float[1,{most}] scores, int64[1] count)
<
    int64[1] most = {{{most}}}, int64[2] most_boxes = {{{most}, 4}}, int64[1] first = {{0}},
    float[1] nms_iou = {{{nms_iou}}}, float[1] threshold = {{{threshold}}}, float nothing = {{0}},
    int64 at_class = {{1}}, int64 at_box = {{2}}
>
{{
    class_scores = Transpose <perm = [0, 2, 1]> (all_scores)
    best = NonMaxSuppression (all_boxes, class_scores, most, nms_iou, threshold)
    best_labels = Gather <axis = 1> (best, at_class)
    best_places = Gather <axis = 1> (best, at_box)
    best_scores = GatherND (class_scores, best)
    image_boxes = Squeeze (all_boxes, first)
    best_boxes = Gather <axis = 0> (image_boxes, best_places)
    no_boxes = ConstantOfShape <value = float[1] {{0}}> (most_boxes)
    no_scores = ConstantOfShape <value = float[1] {{0}}> (most)
    no_labels = ConstantOfShape <value = int64[1] {{0}}> (most)
    padded_boxes = Concat <axis = 0> (best_boxes, no_boxes)
    padded_scores = Concat <axis = 0> (best_scores, no_scores)
    padded_labels = Concat <axis = 0> (best_labels, no_labels)
    top_scores, order = TopK <axis = 0> (padded_scores, most)
    top_boxes = Gather <axis = 0> (padded_boxes, order)
    top_labels = Gather <axis = 0> (padded_labels, order)
    boxes = Unsqueeze (top_boxes, first)
    labels = Unsqueeze (top_labels, first)
    scores = Unsqueeze (top_scores, first)
    is_object = Greater (top_scores, nothing)
    ones = Cast <to = 7> (is_object)
    count = ReduceSum (ones)
}}
"""
"""ONNX's text for the selection: NonMaxSuppression for each class, then the best `most` objects of all classes."""


def detector_onnx(
    network: DetectorNetwork, metadata: DetectorMetadata, suppression: Suppression | None = None, *, seal: bool = True
) -> bytes:
    """Return the detector as an ONNX file, with batch norm folded into the convolutions.

    Leaves `network` in evaluation mode. The file carries `metadata` and `suppression` as JSON in metadata_props.

    Args:
        suppression: rules by which the file selects boxes; None: it gives all boxes.
        seal: whether the metadata include a digest of the file.

    Raises:
        ImportError: onnx or onnxscript is missing.
        ValueError: the metadata are those of another detector, or lack names of classes.
    """
    require_metadata(network, metadata)
    module, size = _AllBoxes(network.eval()).eval(), metadata.detector.input_size
    if suppression is None:
        model = onnx_model(module, size, ("boxes", "scores"))
    else:
        model = onnx_model(module, size, ("all_boxes", "all_scores"), any_batch=False)
        _append_selection(model.graph, suppression, len(metadata.detector.default_boxes), len(metadata.classes))
    values = exported_json(metadata, suppression)
    return onnx_file(model, values | {digests.KEY: digests.blank(values)} if seal else values)


class _AllBoxes(nn.Module):
    """A detector whose outputs are boxes (N, A, 4) within the image, and scores (N, A, C) without the background."""

    places: Tensor
    sides: Tensor

    def __init__(self, network: DetectorNetwork) -> None:
        super().__init__()
        self.network = network
        places, sides = network.default_boxes.chunk(2, dim=1)
        self.register_buffer("places", places.clone())
        self.register_buffer("sides", sides.clone())
        across, _, along, _ = CODER.weights
        self.centre_step, self.side_step = 1 / across, 1 / along

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, offsets = self.network(images)
        shift, scale = offsets.chunk(2, dim=2)
        centre = shift * (self.sides * self.centre_step) + self.places
        half = (scale * self.side_step).clamp(max=CODER.bbox_xform_clip).exp() * (self.sides / 2)
        boxes = torch.cat([centre - half, centre + half], dim=2).clamp(0, 1)
        return boxes, logits.softmax(2)[:, :, 1:]


def _append_selection(graph: Any, rules: Suppression, boxes: int, classes: int) -> None:
    """Append the selection to the onnx.GraphProto of all boxes."""
    import onnx.parser

    numbers = {"boxes": boxes, "classes": classes, "most": rules.most}
    text = _SELECTION.format(**numbers, nms_iou=rules.nms_iou, threshold=rules.score_threshold)
    selection = onnx.parser.parse_graph(text)
    del graph.output[:]
    graph.node.extend(selection.node)
    graph.initializer.extend(selection.initializer)
    graph.output.extend(selection.output)
