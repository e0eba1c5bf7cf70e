"""Draw a network of cells: how its cells are stacked, and below that its two cells side by side.

A row of a cell is one sum of two operations, each with its input below it. `cell -1` is the output of the previous
cell, `cell -2` that of the cell before it, and a number means another sum of the same cell.
"""

from itertools import groupby

from mnas.architecture import Architecture
from mnas.cell_arch import Cell, CellArch
from mnas.ops import BLUE, GREEN, ORANGE, PURPLE
from mnas.report.diagram import (
    BOX_WIDTHS,
    LINE,
    MARGIN,
    PLAIN,
    QUIET,
    TEXT,
    WIDTH,
    Box,
    arch_svg,
    chain_of,
    standalone,
    svg_text,
)

CELL_WIDTH = WIDTH // 2
ROW_HEIGHT = 58
OP_WIDTH = 64
OP_HEIGHT = 28
OFFSET = 46
"""Distance from a cell's middle to that of an operation, in pixels."""


def drawing(arch: Architecture, input_size: int) -> str:
    """Return the drawing of an architecture of either kind on square images, as the text of a standalone SVG.

    Raises:
        ValueError: the images are too small for the strides.
    """
    return cells_svg(arch, input_size) if isinstance(arch, CellArch) else arch_svg(arch, input_size)


def cells_svg(arch: CellArch, input_size: int) -> str:
    """Return the drawing of a network of cells. Raises ValueError where the images are too small for the strides."""
    arch.check_input_size(input_size)
    stack, height = chain_of(_boxes(arch, input_size), input_size)
    cells = [("normal cell", arch.normal), ("reduction cell", arch.reduction)]
    parts = [part for i, (name, cell) in enumerate(cells) for part in _cell(name, cell, i * CELL_WIDTH, height)]
    rows = max(len(cell.pairs) for _, cell in cells) + 1
    return standalone([*stack, *parts], WIDTH, height + MARGIN + ROW_HEIGHT * rows, "; ".join(arch.lines))


def _boxes(arch: CellArch, input_size: int) -> list[Box]:
    """Return the boxes from the stem to the classifier; equal consecutive cells share one box."""
    s, boxes, size = arch.skeleton, [], input_size
    for filters, stride in zip(s.stem_filters, s.stem_strides, strict=True):
        size = -(-size // stride)
        shape = f"{size}×{size}×{filters}"
        boxes.append(Box(label="Conv (k3x3)", colours=ORANGE, width=BOX_WIDTHS[3], shape=shape, stride=stride))
    outputs = {"normal": len(arch.normal.concat), "reduction": len(arch.reduction.concat)}
    channels = 0
    for (kind, filters), cells in groupby(s.plan):
        count, stride = len(list(cells)), 1 if kind == "normal" else 2
        size, channels = -(-size // stride), filters * outputs[kind]
        boxes.append(
            Box(
                label=f"{kind} cell" + (f" ×{count}" if count > 1 else ""),
                colours=BLUE if kind == "normal" else PURPLE,
                width=BOX_WIDTHS[5],
                shape=f"{size}×{size}×{channels}",
                stride=stride,
                layers=count,
            )
        )
    average = Box(label="average pool", colours=PLAIN, width=BOX_WIDTHS[1], shape=f"1×1×{channels}")
    return [*boxes, average, Box(label="FC", colours=PLAIN, width=BOX_WIDTHS[1], shape="")]


def _cell(name: str, cell: Cell, x: int, top: int) -> list[str]:
    middle = x + CELL_WIDTH // 2
    parts = [svg_text(middle, top + MARGIN - 8, name, colour=TEXT, weight=600)]
    top += MARGIN + 6
    for state, pair in enumerate(cell.pairs, 2):
        ends, centre = (middle - OFFSET, middle + OFFSET), top + OP_HEIGHT // 2
        parts.append(f'<path d="M{ends[0]},{centre} H{ends[1]}" stroke="{LINE}" stroke-width="1.5"/>')
        parts += _op(pair.op1, pair.input1, ends[0], top) + _op(pair.op2, pair.input2, ends[1], top)
        parts.append(f'<circle cx="{middle}" cy="{centre}" r="11" fill="#ffffff" stroke="{LINE}"/>')
        parts.append(svg_text(middle, centre + 4.5, str(state), colour=TEXT, weight=600))
        top += ROW_HEIGHT
    output = ", ".join(_state(state) for state in cell.concat)
    return [*parts, svg_text(middle, top + 14, f"out: {output}", colour=TEXT, size=12)]


def _op(op: str, state: int, x: int, top: int) -> list[str]:
    fill, border = _colours(op)
    return [
        f'<rect x="{x - OP_WIDTH // 2}" y="{top}" width="{OP_WIDTH}" height="{OP_HEIGHT}" rx="6" fill="{fill}" '
        f'stroke="{border}" stroke-width="1.25"/>',
        svg_text(x, top + OP_HEIGHT / 2 + 4.5, op, colour=TEXT),
        svg_text(x, top + OP_HEIGHT + 13, f"of {_state(state)}", colour=QUIET, size=11),
    ]


def _state(state: int) -> str:
    return f"cell -{state + 1}" if state < 2 else str(state)


def _colours(op: str) -> tuple[str, str]:
    if op.startswith(("sep", "dilsep")):
        return GREEN
    return ORANGE if op.startswith(("conv", "dil")) else PLAIN
