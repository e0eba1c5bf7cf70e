"""Draw an architecture as a block diagram in the manner of the MnasNet paper's Figure 7 (arXiv:1807.11626), as one SVG.

Boxes from top to bottom are the stem, the blocks, the head, pooling and the classifier; the text between them gives the
feature map's shape (height x width x channels) and strides other than 1. Colour is the operation, a box's width its
kernel, a shadow means several layers, and a loop on the right is the skip connection.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from xml.sax.saxutils import escape

from mnas.arch import Arch
from mnas.block import Block
from mnas.ops import OPS, ORANGE, Colours
from mnas.text import clean

WIDTH = 340
CENTRE = 152
BOX_HEIGHT = 34
GAP = 32
MARGIN = 26

TEXT = "#1f2933"
QUIET = "#52606d"
STRIDE = "#b42318"
LINE = "#7b8794"

PLAIN: Colours = ("#eef1f5", "#9aa5b1")
BOX_WIDTHS = {1: 150, 3: 172, 5: 198, 7: 224}


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box of the chain, and its output."""

    label: str
    colours: Colours
    width: int
    shape: str
    """Shape of the feature map below the box; empty for the last box."""
    stride: int = 1
    layers: int = 1
    skip: str = ""
    """Label of the loop; empty without a loop."""


def block_label(block: Block) -> str:
    """Return the text of a block's box: `MBConv6 (k5x5) SE ×3`; an SE ratio other than the paper's 0.25 is included."""
    row = OPS[block.op]
    inside = f" m{block.mid_filters}" if block.mid_filters else f"{block.expansion!r}"
    name = f"{row.title}{inside}" if row.expands else row.title
    kernels = [kernel for kernel in (block.start_kernel, block.kernel) if kernel]
    parts = [f"{name} ({', '.join(f'k{kernel}x{kernel}' for kernel in kernels)})" if kernels else name]
    if block.activation != "network":
        parts.append(block.activation)
    if block.se_ratio:
        parts.append("SE" if block.se_ratio == 0.25 else f"SE{block.se_ratio:g}")
    if block.layers > 1:
        parts.append(f"×{block.layers}")
    return " ".join(parts)


def arch_svg(arch: Arch, input_size: int) -> str:
    """Return the block diagram of `arch` on images of `input_size` x `input_size` pixels, as a standalone SVG.

    Raises:
        ValueError: the images are too small for the strides.
    """
    arch.check_input_size(input_size)
    chain, height = chain_of(_boxes(arch, input_size), input_size)
    return standalone(chain, WIDTH, height, ", ".join(arch.block_strings))


def chain_of(boxes: Sequence[Box], input_size: int) -> tuple[list[str], int]:
    """Return the SVG elements and the height of a chain of boxes with arrows, below an image of `input_size`."""
    parts = [svg_text(CENTRE, MARGIN, "input", colour=TEXT, weight=600)]
    top, shape = MARGIN + 6, f"{input_size}×{input_size}×3"
    for box in boxes:
        parts += _arrow(top, shape, box.stride)
        parts += _draw(box, top + GAP)
        top += GAP + BOX_HEIGHT
        shape = box.shape
    return parts, MARGIN + len(boxes) * (BOX_HEIGHT + GAP) + 16


def standalone(parts: Sequence[str], width: int, height: int, title: str) -> str:
    """Return the text of an SVG with these elements, a white background and a title."""
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" font-family="Helvetica, Arial, sans-serif" font-size="13">',
        f"<title>{escape(clean(title))}</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def _boxes(arch: Arch, input_size: int) -> list[Box]:
    """Return the boxes from stem to classifier. SAME and symmetric padding halve alike: a stride rounds the size up."""
    size = -(-input_size // arch.stem_stride)
    boxes = [
        Box(
            label="Conv (k3x3)",
            colours=ORANGE,
            width=BOX_WIDTHS[3],
            shape=f"{size}×{size}×{arch.stem_filters}",
            stride=arch.stem_stride,
        )
    ]
    for number, block in enumerate(arch.blocks, 1):
        size = -(-size // block.stride)
        skips = {layer.skip for layer in arch.layers if layer.name.startswith(f"block{number}.")}
        boxes.append(
            Box(
                label=block_label(block),
                colours=_colours(block),
                width=BOX_WIDTHS[max(block.kernel, block.start_kernel, 1)],
                shape=f"{size}×{size}×{block.filters}",
                stride=block.stride,
                layers=block.layers,
                skip="identity" if "identity" in skips else "pool" if "pool" in skips else "",
            )
        )
    last = Box(label="FC", colours=PLAIN, width=BOX_WIDTHS[1], shape="")
    return [*boxes, *_head_boxes(arch, size), last]


def _head_boxes(arch: Arch, size: int) -> list[Box]:
    """Return the boxes of the average pool and of the head, which precedes or follows it or is missing."""
    before, after = arch.blocks[-1].filters, arch.features
    pool = Box(label="average pool", colours=PLAIN, width=BOX_WIDTHS[1], shape=f"1×1×{after}")
    if not arch.head_filters:
        return [pool]
    side = 1 if arch.head_pooled else size
    head = Box(label="Conv (k1x1)", colours=ORANGE, width=BOX_WIDTHS[1], shape=f"{side}×{side}×{after}")
    return [replace(pool, shape=f"1×1×{before}"), head] if arch.head_pooled else [head, pool]


def _colours(block: Block) -> Colours:
    return OPS[block.op].colours[block.expansion > 4]


def svg_text(
    x: float, y: float, text: str, *, colour: str, weight: int = 400, anchor: str = "middle", size: int = 13
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}">{escape(clean(text))}</text>'
    )


def _arrow(top: int, shape: str, stride: int) -> list[str]:
    """Return the arrow from `top` down to the next box, with the shape on its right and a stride on its left."""
    tip = top + GAP
    parts = [
        f'<line x1="{CENTRE}" y1="{top + 2}" x2="{CENTRE}" y2="{tip - 6}" stroke="{LINE}" stroke-width="1.5"/>',
        f'<polygon points="{CENTRE - 4},{tip - 8} {CENTRE + 4},{tip - 8} {CENTRE},{tip - 1}" fill="{LINE}"/>',
        svg_text(CENTRE + 12, top + GAP / 2 + 4, shape, colour=QUIET, anchor="start", size=12),
    ]
    if stride != 1:
        label = f"stride {stride}"
        parts.append(svg_text(CENTRE - 12, top + GAP / 2 + 4, label, colour=STRIDE, weight=600, anchor="end", size=12))
    return parts


def _draw(box: Box, top: int) -> list[str]:
    fill, border = box.colours
    edge = CENTRE - box.width / 2

    def rectangle(shift: int) -> str:
        return (
            f'<rect x="{edge + shift:g}" y="{top + shift}" width="{box.width}" height="{BOX_HEIGHT - 4}" rx="6" '
            f'fill="{fill}" stroke="{border}" stroke-width="1.25"/>'
        )

    parts = [rectangle(shift) for shift in range(2 * min(box.layers - 1, 2), -1, -2)]
    parts.append(svg_text(CENTRE, top + BOX_HEIGHT / 2 + 2.5, box.label, colour=TEXT, weight=600))
    if box.skip:
        right = edge + box.width + 2 * min(box.layers - 1, 2)
        high, low = top + 5, top + BOX_HEIGHT - 9
        dashes = ' stroke-dasharray="3 2.5"' if box.skip == "pool" else ""
        parts.append(
            f'<path d="M{right + 2:g},{high} h8 q6,0 6,6 V{low - 6} q0,6 -6,6 h-3" '
            f'fill="none" stroke="{LINE}" stroke-width="1.25"{dashes}/>'
        )
        parts.append(
            f'<polygon points="{right + 8:g},{low - 4} {right + 8:g},{low + 4} {right + 2:g},{low}" fill="{LINE}"/>'
        )
        parts.append(svg_text(right + 21, top + BOX_HEIGHT / 2 + 2, box.skip, colour=QUIET, anchor="start", size=11))
    return parts
