"""`mnas show`: print the layers and costs of an architecture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich import box
from rich.table import Table

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.atomic import write_atomic
from mnas.cli.console import make_console
from mnas.detector import COCO_CLASSES, INPUT_SIZE, Detector, HeadOrNone, detector_on
from mnas.formats import WEIGHTS_NAME
from mnas.names import searched_as
from mnas.nn.cost import Cost, CostRow, by_layer, cost
from mnas.nn.detection.cost import by_detector_layer, by_detector_part, detector_cost
from mnas.nn.detection.weights_info import is_detector_file, read_detector
from mnas.ops import Shape
from mnas.report.cell_diagram import drawing
from mnas.scaling import at_width, input_sizes, width_multipliers

_MOST_NAMES = 10
_PARTS = {"backbone": "backbone", "extra": "extra layers", "predict": "predictions"}


@dataclass(frozen=True, kw_only=True)
class ShowCommand:
    """Print an architecture's layers with their shapes, parameters and multiply-accumulates (MACs). With --save, also
    draw it."""

    arch: str = field(kw_only=False)
    """Named network (mnasnet-a1, mnasnet-a1@0.5, mnasnet-small/s8), trial (runs/NAME#17), .json file, or block strings
    joined by commas (r1_k3_s22_e1_o16,r2_k5_s22_e6_o24). Also the .safetensors file of a detector."""
    input_size: str = "auto"
    """Side of the square image in pixels. auto: that of the trial's search, 224 for other networks, 320 for a
    detector. For several sizes (96,128,160) or widths, print one row each instead of the layers."""
    width_multiplier: str = "1"
    """Width multiplier, or several (0.35,0.5,1)."""
    classes: int | Literal["auto"] = "auto"
    """Number of classes, without the background of a detector. auto: that of the trial's search, 1000 for other
    networks, COCO's 80 for a detector."""
    head: HeadOrNone = "none"
    """Head of a detector on the network as its backbone. none: the classifier. ssdlite: SSDLite with the paper's
    default boxes."""
    save: Path | None = None
    """Also draw the network as a block diagram to this .svg file."""

    def run(self) -> None:
        """Print the table, and write the drawing where requested."""
        if self.save is not None and self.save.suffix != ".svg":
            raise ValueError(f"--save must name an .svg file, but got {str(self.save)!r}")
        if self.save is not None and self.head != "none":
            raise ValueError(f"--save must be used without --head, but got --head {self.head}; it draws the backbone")
        if self.classes != "auto" and self.classes < 1:
            raise ValueError(f"--classes must be auto, or 1 or more, but got {self.classes}")
        if (file := detector_file(self.arch)) is not None:
            self._print_file(file)
            return
        scaled = dict(at_width(self.arch, width) for width in width_multipliers(self.width_multiplier))
        own_size, own_classes = searched_as(self.arch) if self.head == "none" else (INPUT_SIZE, COCO_CLASSES)
        sizes = input_sizes(self.input_size) or (own_size,)
        classes = own_classes if self.classes == "auto" else self.classes
        console = make_console()
        if len(sizes) * len(scaled) > 1:
            if self.save is not None:
                raise ValueError(
                    "--save must be used with one --width-multiplier and one --input-size, but got "
                    f"{len(scaled)} and {len(sizes)} with {str(self.save)!r}"
                )
            console.print(scaling_table(scaled, sizes, classes, self.head))
            return
        (arch,), (input_size,) = scaled.values(), sizes
        if self.head != "none":
            self._print_detector(detector_on(arch, self.head, input_size=input_size), classes)
            return
        console.print(cost_table(arch, input_size, classes))
        console.lines(*(f"  {line}" for line in arch.lines))
        if isinstance(arch, Arch) and (fields := arch.not_in_strings):
            listed = ", ".join(f"{name} {_value(value)}" for name, value in fields.items())
            console.lines(f"  not in the block strings: {listed}")
        console.print(f"  fingerprint {arch.fingerprint}, output stride {arch.output_stride}")
        if self.save is not None:
            write_atomic(self.save, drawing(arch, input_size))
            console.print(f"  wrote {self.save}")

    def _print_file(self, path: Path) -> None:
        """Print the detector in a file. Raises ValueError where an option would change it, or the file is damaged."""
        options = {"--input-size": (self.input_size, "auto"), "--width-multiplier": (self.width_multiplier, "1")}
        options |= {"--classes": (str(self.classes), "auto"), "--save": (str(self.save), "None")}
        for option, (value, default) in options.items():
            if value != default:
                raise ValueError(
                    f"{option} must not be used with the file of a detector, but got {value!r} with {str(path)!r}; "
                    "omit it"
                )
        metadata = read_detector(path)[1]
        self._print_detector(metadata.detector, len(metadata.classes))
        listed = ", ".join(metadata.classes[:_MOST_NAMES])
        more = f" and {len(metadata.classes) - _MOST_NAMES} more" if len(metadata.classes) > _MOST_NAMES else ""
        precision = metadata.mean_precision
        make_console().lines(
            f"  names of the classes: {listed}{more}",
            "  mAP on the validation images: " + ("not scored" if precision is None else f"{100 * precision:.1f} %"),
        )

    def _print_detector(self, detector: Detector, classes: int) -> None:
        console, whole = make_console(), detector_cost(detector, classes)
        console.print(_table(by_detector_layer(detector, whole), whole, detector.input_size))
        for part, (params, macs) in by_detector_part(whole).items():
            console.print(f"  {_PARTS[part]}: {params:,} params, {macs:,} MACs")
        console.print(
            f"  {classes} classes and the background, {len(detector.default_boxes):,} default boxes on maps of sides "
            f"{', '.join(map(str, detector.map_sides))}"
        )
        console.print(f"  fingerprint {detector.fingerprint}")


def detector_file(name: str) -> Path | None:
    """Return the weights file of a detector that `name` names, itself or the folder of its training; else None."""
    path = Path(name)
    path = path / WEIGHTS_NAME if path.is_dir() else path
    return path if path.is_file() and is_detector_file(path) else None


def scaling_table(
    archs: Mapping[str, Architecture], input_sizes: Sequence[int], num_classes: int, head: HeadOrNone
) -> Table:
    """Return a row for each size and architecture. Raises ValueError where an image is too small."""
    table = Table("name", box=box.SIMPLE)
    for column in ("px", "params", "MACs"):
        table.add_column(column, justify="right")
    for size in input_sizes:
        for name, arch in archs.items():
            if head == "none":
                whole = cost(arch, size, num_classes)
            else:
                whole = detector_cost(detector_on(arch, head, input_size=size), num_classes)
            table.add_row(name, str(size), f"{whole.params:,}", f"{whole.macs:,}")
    return table


def cost_table(arch: Architecture, input_size: int, num_classes: int) -> Table:
    """Return a row for each layer and the sum. Raises ValueError where the image is too small."""
    whole = cost(arch, input_size, num_classes)
    return _table(by_layer(arch, whole), whole, input_size)


def _table(rows: Sequence[CostRow], whole: Cost, input_size: int) -> Table:
    table = Table("layer", "op", "output", box=box.SIMPLE, show_footer=True)
    table.add_column("params", footer=f"{whole.params:,}", justify="right")
    table.add_column("MACs", footer=f"{whole.macs:,}", justify="right")
    table.columns[0].footer = "total"
    table.columns[1].footer = f"input {_text((3, input_size, input_size))}"
    for row in rows:
        table.add_row(row.name, row.op, _text(row.output_shape), f"{row.params:,}", f"{row.macs:,}")
    return table


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(shape: Shape) -> str:
    channels, height, width = shape
    return f"{height}x{width}x{channels}"
