"""Load pretrained weights into a named architecture: from timm, torchvision, installed packages, or files on disk.

The source of the weights determines padding, batch norm's epsilon and MnasNet-small's first residual, even if the
named architecture differs, so that outputs equal the source model's. Code in a file never runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import Size, Tensor, isfinite

from mnas.arch import Arch, Padding
from mnas.architecture import Architecture
from mnas.cell_arch import CellArch
from mnas.formats import WEIGHTS_SUFFIX
from mnas.metadata import ModelMetadata
from mnas.nn.layouts import LAYOUTS, StateDictLayout, layout_of, trained_arch
from mnas.nn.network import Network, build_network
from mnas.nn.published import SOURCES, of_library, package_of, published_tensors, timm_config
from mnas.nn.weight_files import read_tensors
from mnas.nn.weights_info import is_weights_file, read_weights_info
from mnas.zoo.architectures import ZOO, named_arch
from mnas.zoo.weights import TIMM, TORCHVISION, TimmModel, published_name

IMAGENET: dict[str, Any] = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "input_size": 224,
    "crop": 0.875,
}
"""How most models for ImageNet expect their images."""

_SHOWN = 3


class NoClassifierError(ValueError):
    """The weights are those of a network without its classifier."""


def load_pretrained(
    source: str, arch: Architecture, num_classes: int | None, *, name: str, new_classifier: bool = False
) -> Network:
    """Return the network of `arch` with the weights of `source`, in evaluation mode, on the CPU.

    The network's own `arch` has the source model's padding and batch norm, so that outputs are equal (`arch_changes`
    lists the differences), and the strides and dropout of the argument. Supported layouts are timm's, torchvision's,
    pytorchcv's, EfficientNet-PyTorch's and ours (for cells only ours), plain or under "state_dict", "model" (or their
    averages), with or without DDP's prefixes.

    Args:
        source: `timm` or `torchvision` (which download), `pretrained` (packages of that extra), or the path of a
            .safetensors, .pth, .pt or .bin file.
        num_classes: number of outputs; None: as many as the weights have.
        name: the user's name for `arch`; a zoo name for the sources that are not files.
        new_classifier: give the classifier fresh weights, from torch's global generator, instead of the source's.

    Raises:
        ImportError: the package with the weights is not installed.
        ValueError: the source is missing or unreadable, contains code, or has tensors that do not fit; one line. A
            NoClassifierError if only the classifier is missing, and not to be new.
    """
    if isinstance(arch, CellArch):
        return _own_cells(source, arch, num_classes, name, new_classifier)
    tensors = _read(source, name)
    origin = f"{source}'s {name}" if source in SOURCES else repr(source)
    layout = layout_of(tensors)
    if layout is None:
        titles = ", ".join(layout.title for layout in LAYOUTS)
        raise ValueError(f"the tensors of {origin} must be named as in {titles}, but got {_some(list(tensors))}")
    arch = _with_recorded(source, _as_trained(arch, name, layout, tensors), name)
    classes = tensors.get(f"{layout.modules(arch, tensors)['classifier']}.bias")
    there = len(classes) if classes is not None and classes.ndim == 1 else None
    if num_classes is None:
        num_classes = there or 1  # if it has none, the check below reports the missing tensors
    network = build_network(arch, num_classes)
    _fill(network, tensors, layout.modules(arch, tensors), new_classifier, f"{origin} for {name}")
    return network.eval()


def pretrained_info(source: str, network: Network, *, name: str, classes: Sequence[str] | None = None) -> ModelMetadata:
    """Return the metadata of `network`, which `load_pretrained` made from the same `source` and `name`.

    Mean, standard deviation, size and crop are those of the source model's evaluation. A file by other authors does not
    contain them: it gets those of timm's model of this name, or ImageNet's usual ones. `accuracy` comes from a file
    written by mnas, and is None for other files, because mnas has not scored them.

    Args:
        classes: class names; None: the source's own, which are ImageNet's or those in a file written by mnas.

    Raises:
        ValueError: the number of classes is not the network's, or unnamed classes are not ImageNet's 1000.
    """
    info = _facts(source, network.arch, name)
    if classes is not None and tuple(classes) != info.classes:
        info = replace(info, classes=tuple(classes), accuracy=None)
    outputs = network.classifier.out_features
    if len(info.classes) != outputs:
        raise ValueError(
            f"--class-file must name each of the {outputs} outputs, but got {len(info.classes)} names"
            f"{' of ImageNet' if classes is None and len(info.classes) == 1000 else ''}"
        )
    return info


def unrecorded_images(source: str, name: str) -> str:
    """Return how `pretrained_info` assumes that images are prepared, as a sentence; empty where the source records it.

    Files of mnas record it, and so do timm, torchvision and the packages.
    """
    path = Path(source)
    if source in SOURCES or not path.is_file() or is_weights_file(path):
        return ""
    using = "ImageNet's usual mean, standard deviation and crop"
    if published_name(name) in TIMM and any(_of_timm(name)[key] != IMAGENET[key] for key in ("mean", "std", "crop")):
        using = f"the mean, standard deviation and crop of timm's {timm_config(name).architecture}"
    return f"{source} does not record how to prepare images; using {using}"


def arch_changes(named: Arch, loaded: Arch) -> str:
    """Return the changes of `load_pretrained` as text, `padding symmetric (not same), ...`; empty without any."""
    changed = []
    for field in fields(Arch):
        before, after = getattr(named, field.name), getattr(loaded, field.name)
        if before == after:
            continue
        if field.name == "blocks" and len(after) != len(before):
            changed.append(f"{len(after)} blocks (not {len(before)})")
        elif field.name == "blocks":
            strings = zip(named.block_strings, loaded.block_strings, strict=True)
            changed += [f"block {i} {new} (not {old})" for i, (old, new) in enumerate(strings, 1) if new != old]
        else:
            changed.append(f"{field.name} {_number(after)} (not {_number(before)})")
    return ", ".join(changed)


# Sources of tensors


def _read(source: str, name: str) -> dict[str, Tensor]:
    if source in SOURCES:
        return published_tensors(source, name)
    path = Path(source)
    if not path.is_file():
        fault = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
        raise ValueError(
            f"--weights must be timm, torchvision, pretrained or a .safetensors, .pth, .pt or .bin file, "
            f"but got {source!r}, which {fault}"
        )
    return read_tensors(path)


# Fitting tensors to the network


def _as_trained(arch: Arch, name: str, layout: StateDictLayout, tensors: Mapping[str, Tensor]) -> Arch:
    small = ZOO["mnasnet-small"].arch
    assert isinstance(small, Arch)
    padding, bn_epsilon = _numerics(arch, name, layout)
    arch = trained_arch(arch, layout, small=_shape(arch) == _shape(small), padding=padding, bn_epsilon=bn_epsilon)
    if layout.mark == "layers.0.weight":
        # The first version of torchvision's MNASNet scaled neither the stem nor the first block.
        widths = [tensors[key].shape[0] for key in ("layers.0.weight", "layers.6.weight") if key in tensors]
        if widths == [32, 16]:
            blocks = (replace(arch.blocks[0], filters=16), *arch.blocks[1:])
            arch = replace(arch, stem_filters=32, blocks=blocks)
    return arch


def _numerics(arch: Arch, name: str, layout: StateDictLayout) -> tuple[Padding, float]:
    """Return padding and batch-norm epsilon of the model that the tensors of `arch`, called `name`, come from."""
    model = _timm_model(arch, name) if layout.title == "timm" else None
    return (layout.padding, layout.bn_epsilon) if model is None else (model.padding, model.bn_epsilon)


def _timm_model(arch: Arch, name: str) -> TimmModel | None:
    """Return timm's model of this name, else of the same blocks at any width (a trial or a file), or None."""
    shapes = {named: named_arch(named) for named in TIMM}
    same = [named for named, other in shapes.items() if isinstance(other, Arch) and _shape(other) == _shape(arch)]
    return TIMM.get(published_name(name)) or (TIMM[same[0]] if same else None)


def _shape(arch: Arch) -> object:
    """Return an architecture without its widths and strides, for comparison."""
    return [(b.op, b.kernel, b.layers, b.expansion, b.mid_filters, b.se_ratio) for b in arch.blocks]


def _with_recorded(source: str, arch: Arch, name: str) -> Arch:
    """Return the architecture recorded in a file written by mnas with the strides and dropout of `arch`, or `arch`."""
    info = _recorded(source)
    if info is None:
        return arch
    assert isinstance(info.arch, Arch)  # cell networks have no layout, so they never get here
    if not same_sizes(info.arch, arch):
        raise ValueError(
            f"{source!r} must contain weights of {name}, but got those of another architecture: "
            f"{_some(arch_changes(arch, info.arch).split(', '))}"
        )
    pairs = zip(info.arch.blocks, arch.blocks, strict=True)
    blocks = tuple(replace(block, stride=named.stride) for block, named in pairs)
    return replace(info.arch, blocks=blocks, stem_stride=arch.stem_stride, dropout=arch.dropout)


def same_sizes(one: Arch, other: Arch) -> bool:
    """Return whether both networks have tensors of the same names and shapes."""
    return _sizes(one) == _sizes(other)


def _sizes(arch: Arch) -> object:
    """Return the values that determine the names and shapes of an architecture's tensors."""
    head = arch.head_filters, arch.head_pooled, arch.head_norm
    blocks = [(b.op, b.kernel, b.start_kernel, b.filters, b.layers, b.expansion, b.mid_filters) for b in arch.blocks]
    return arch.stem_filters, head, blocks, [layer.se_filters for layer in arch.layers]


def _own_cells(source: str, arch: CellArch, num_classes: int | None, name: str, new_classifier: bool) -> Network:
    info = _recorded(source)
    if info is None:
        raise ValueError(
            f"weights of {name}, a network of cells, must be a .safetensors file of mnas, but got {source!r}"
        )
    if info.arch != arch:
        raise ValueError(f"{source!r} must contain weights of {name}, but got those of another architecture")
    network = build_network(arch, num_classes or len(info.classes))
    _fill(network, _read(source, name), {"classifier": "classifier"}, new_classifier, f"{source!r} for {name}")
    return network.eval()


def _recorded(source: str) -> ModelMetadata | None:
    path = Path(source)
    ours = source.endswith(WEIGHTS_SUFFIX) and is_weights_file(path)
    return read_weights_info(path) if ours else None


def _fill(
    network: Network, tensors: Mapping[str, Tensor], modules: Mapping[str, str], new_classifier: bool, what: str
) -> None:
    """Load `tensors` into `network`; `modules` maps our module names to theirs if they differ.

    Raises ValueError that lists missing and unexpected tensors, and those of another shape.
    """
    wanted: dict[str, Tensor] = {}  # by their name, or by ours if they have none
    ours: dict[str, str] = {}
    for key, tensor in network.state_dict().items():
        module, _, leaf = key.rpartition(".")
        theirs = f"{modules[module]}.{leaf}" if module in modules else key
        wanted[theirs], ours[theirs] = tensor, key
    classifier = {f"{modules['classifier']}.{leaf}" for leaf in ("weight", "bias")}
    skipped = classifier if new_classifier else set()
    missing = [
        key for key in wanted if key not in tensors and key not in skipped and not key.endswith("num_batches_tracked")
    ]
    unexpected = [key for key in tensors if key not in wanted]
    shapes = {
        key: _as_convolution(tensors[key].shape, wanted[key].shape)
        for key in wanted
        if key in tensors and key not in skipped
    }
    wrong = [key for key, shape in shapes.items() if shape != wanted[key].shape]
    other_classes = [key for key in wrong if key in classifier and shapes[key][1:] == wanted[key].shape[1:]]
    if wrong and other_classes == wrong and not missing and not unexpected:
        raise ValueError(
            f"the weights of {what} have {len(tensors[wrong[0]])} classes, but {len(wanted[wrong[0]])} are required; "
            "to replace the classifier, train with mnas train --preset finetune"
        )
    if missing and classifier.issuperset(missing) and not unexpected and not wrong:
        raise NoClassifierError(
            f"the weights of {what} have no classifier; train with these weights (mnas train), which adds one"
        )
    if missing or unexpected or wrong:
        words = [f"{key} {tuple(shapes[key])} instead of {tuple(wanted[key].shape)}" for key in wrong]
        lists = (("missing", missing), ("unexpected", unexpected), ("of another shape", words))
        faults = "; ".join(f"{len(items)} {title} ({_some(items)})" for title, items in lists if items)
        raise ValueError(f"the weights of {what} must fit the architecture, but got {faults}")
    wild = [key for key in shapes if not isfinite(tensors[key]).all()]
    if wild:
        raise ValueError(f"the weights of {what} must be finite, but got NaN or infinity in {_some(wild)}")
    network.load_state_dict({ours[key]: tensors[key].reshape(shapes[key]) for key in shapes}, strict=False)


def _as_convolution(shape: Size, wanted: Size) -> Size:
    """Return `shape`, of a linear layer's weights as those of a 1x1 convolution where such are wanted."""
    return Size((*shape, 1, 1)) if len(shape) == 2 and len(wanted) == 4 else shape


def _some(names: Sequence[str]) -> str:
    """Return the first few names, and the number of others."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


# Metadata of pretrained models


def _facts(source: str, arch: Architecture, name: str) -> ModelMetadata:
    recorded = _recorded(source)
    if recorded is not None:
        return replace(recorded, arch=arch, accuracy=None if arch != recorded.arch else recorded.accuracy)
    from torchvision.models import MobileNet_V2_Weights

    facts = IMAGENET
    if source == "pretrained":
        package = package_of(name)
        facts = {field: getattr(package, field) for field in IMAGENET}
    elif source == "torchvision":
        from torchvision.models import get_model_weights

        view = get_model_weights(of_library("torchvision", TORCHVISION, name)).DEFAULT.transforms()
        facts = {"mean": tuple(view.mean), "std": tuple(view.std), "input_size": view.crop_size[0]}
        facts["crop"] = view.crop_size[0] / view.resize_size[0]
    elif source == "timm" or published_name(name) in TIMM:
        facts = _of_timm(name)
    classes = tuple(MobileNet_V2_Weights.DEFAULT.meta["categories"])  # timm uses the same order
    return ModelMetadata(arch=arch, classes=classes, accuracy=None, **facts)


def _of_timm(name: str) -> dict[str, Any]:
    config = timm_config(name)
    return {"mean": config.mean, "std": config.std, "input_size": config.input_size[-1], "crop": config.crop_pct}


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
