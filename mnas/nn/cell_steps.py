"""The computation of a network of cells as steps, from which costs, torch network and LiteRT file are built.

Rules: NASNet's published code (tensorflow/models, research/slim/nets/nasnet/nasnet_utils.py), where a branch is ReLU,
convolution, batch norm, in this order. Operations outside NASNet-A follow AmoebaNet's code (tensorflow/tpu,
models/official/amoeba_net/network_utils.py), the dilated separable ones DARTS's.
"""

from dataclasses import dataclass
from typing import Literal

from mnas.cell_arch import Cell, CellArch

StepOp = Literal["conv", "depthwise", "relu", "average", "max", "shift", "add", "concat"]
IMAGE = "image"
"""Name of the network's input."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation, named after the value that it computes."""

    name: str
    """Name, such as `cell3.pair2.left.depthwise1`."""
    op: StepOp
    """Operation; `conv` includes batch norm, `depthwise` does not, `shift` moves all pixels one up and left."""
    inputs: tuple[str, ...]
    channels: int
    """Channels of the result."""
    in_channels: int
    """Channels of the first input."""
    kernel: tuple[int, int] = (1, 1)
    """Kernel size (height, width)."""
    stride: tuple[int, int] = (1, 1)
    """Stride (vertical, horizontal)."""
    dilation: int = 1
    relu: bool = False
    """Whether ReLU follows the batch norm."""


def cell_steps(arch: CellArch) -> tuple[Step, ...]:
    """Return the steps of `arch` in order of computation, from `IMAGE` to the features before the average pool.

    Steps without influence on the result are omitted: a cell that ignores the one before it may leave another unused.
    """
    builder = _Builder()
    s = arch.skeleton
    outputs = [IMAGE]
    for number, (filters, stride) in enumerate(zip(s.stem_filters, s.stem_strides, strict=True), 1):
        x = builder.relu(outputs[-1]) if number > 1 else IMAGE
        outputs.append(builder.conv(f"stem.conv{number}", x, filters, (3, 3), (stride, stride)))
    for number, (kind, filters) in enumerate(s.plan, 1):
        before = outputs[-2] if outputs[-2] != IMAGE else None
        cell = arch.normal if kind == "normal" else arch.reduction
        stride = 1 if kind == "normal" else 2
        outputs.append(builder.cell(f"cell{number}", cell, outputs[-1], before, filters, stride))
    return builder.needed_for(builder.relu(outputs[-1]))


class _Builder:
    """Steps so far, and the shapes of their values; each method adds steps and returns the name of their result."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}
        self.channels = {IMAGE: 3}
        self.shrunk = {IMAGE: 1}  # name -> image pixels per pixel of the value

    def add(
        self,
        op: StepOp,
        name: str,
        inputs: tuple[str, ...],
        channels: int,
        *,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        dilation: int = 1,
        relu: bool = False,
    ) -> str:
        if name not in self.steps:
            self.steps[name] = Step(
                name=name,
                op=op,
                inputs=inputs,
                channels=channels,
                in_channels=self.channels[inputs[0]],
                kernel=kernel,
                stride=stride,
                dilation=dilation,
                relu=relu,
            )
            self.channels[name] = channels
            self.shrunk[name] = self.shrunk[inputs[0]] * stride[0]
        return name

    def relu(self, x: str) -> str:
        """Add the ReLU of x, once for all branches that begin with it."""
        return self.add("relu", f"{x}.relu", (x,), self.channels[x])

    def conv(
        self,
        name: str,
        x: str,
        channels: int,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        *,
        dilation: int = 1,
        relu: bool = False,
    ) -> str:
        return self.add("conv", name, (x,), channels, kernel=kernel, stride=stride, dilation=dilation, relu=relu)

    def cell(self, name: str, cell: Cell, previous: str, before: str | None, filters: int, stride: int) -> str:
        """Add a cell after `previous`; `before` is the output before that, None at the beginning of the network."""
        first = self.conv(f"{name}.previous", self.relu(previous), filters)
        # As in the published code, the first cell uses its only input also for the missing one, unchanged.
        second = (
            previous if before is None else self.projected(f"{name}.before", before, filters, self.shrunk[previous])
        )
        states = [first, second]
        for number, pair in enumerate(cell.pairs, 1):
            sides = [("left", pair.input1, pair.op1), ("right", pair.input2, pair.op2)]
            branches = tuple(
                self.branch(f"{name}.pair{number}.{side}", op, states[state], filters, stride if state < 2 else 1)
                for side, state, op in sides
            )
            states.append(self.add("add", f"{name}.pair{number}", branches, filters))
        size = self.shrunk[previous] * stride
        parts = [self.fitted(f"{name}.state{state}", states[state], filters, size) for state in cell.concat]
        return parts[0] if len(parts) == 1 else self.add("concat", name, tuple(parts), filters * len(parts))

    def fitted(self, name: str, x: str, filters: int, shrunk: int) -> str:
        """Return x if it has the width and the size (`shrunk`) of a cell's states, else add its projection to them."""
        fits = self.channels[x] == filters and self.shrunk[x] == shrunk
        return x if fits else self.projected(name, x, filters, shrunk)

    def projected(self, name: str, x: str, filters: int, shrunk: int) -> str:
        """Add a 1x1 convolution of x, or a factorized reduction to half the size.

        The reduction maps every second pixel to one half of the filters, and the pixels one row and one column further
        to the other half.
        """
        x, from_size = self.relu(x), self.shrunk[x]
        if from_size == shrunk:
            return self.conv(name, x, filters)
        assert 2 * from_size == shrunk
        shifted = self.add("shift", f"{x}.shift", (x,), self.channels[x])
        even = self.conv(f"{name}.even", x, filters // 2, stride=(2, 2))
        odd = self.conv(f"{name}.odd", shifted, filters - filters // 2, stride=(2, 2))
        return self.add("concat", name, (even, odd), filters)

    def branch(self, name: str, op: str, x: str, filters: int, stride: int) -> str:
        """Add operation `op` of a cell on state x."""
        strides = (stride, stride)
        if op == "identity" and stride == 1 and self.channels[x] == filters:
            return x
        if op in ("identity", "conv1"):
            return self.conv(f"{name}.conv", self.relu(x), filters, stride=strides)
        size = int(op[-1])
        if op.startswith(("avg", "max")):
            kind: StepOp = "average" if op.startswith("avg") else "max"
            y = self.add(kind, f"{name}.pool", (x,), self.channels[x], kernel=(size, size), stride=strides)
            return y if self.channels[x] == filters else self.conv(f"{name}.conv", y, filters)
        if op.startswith("sep"):
            y = self.separable(f"{name}.1", self.relu(x), filters, size, stride, relu=True)
            return self.separable(f"{name}.2", y, filters, size, 1)
        if op.startswith("dilsep"):
            return self.separable(f"{name}.1", self.relu(x), filters, size, stride, dilation=2)
        return self.bottleneck(name, op, x, filters, stride)

    def separable(
        self, name: str, x: str, filters: int, size: int, stride: int, *, dilation: int = 1, relu: bool = False
    ) -> str:
        channels, kernel = self.channels[x], (size, size)
        name = f"{name}.depthwise"
        y = self.add("depthwise", name, (x,), channels, kernel=kernel, stride=(stride, stride), dilation=dilation)
        return self.conv(name.removesuffix("depthwise") + "pointwise", y, filters, relu=relu)

    def bottleneck(self, name: str, op: str, x: str, filters: int, stride: int) -> str:
        """Add conv3, dil3, conv1x3 or conv1x7: on fewer channels between 1x1 convolutions, if any channels remain."""
        narrow = 3 * filters // 8 if op == "conv1x3" else filters // 4
        y = self.relu(x)
        if narrow:
            y = self.conv(f"{name}.reduce", y, narrow, relu=True)
        inside, size, again = narrow or filters, int(op[-1]), narrow > 0
        if "x" in op:
            y = self.conv(f"{name}.row", y, inside, (1, size), (1, stride), relu=True)
            y = self.conv(f"{name}.column", y, inside, (size, 1), (stride, 1), relu=again)
        else:
            dilation = 2 if op == "dil3" else 1
            y = self.conv(f"{name}.conv", y, inside, (size, size), (stride, stride), dilation=dilation, relu=again)
        return self.conv(f"{name}.expand", y, filters) if again else y

    def needed_for(self, last: str) -> tuple[Step, ...]:
        needed = {last}
        for step in reversed(self.steps.values()):
            if step.name in needed:
                needed.update(step.inputs)
        return tuple(step for step in self.steps.values() if step.name in needed)
