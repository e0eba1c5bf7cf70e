"""Load pretrained weights into a named architecture: from timm, torchvision, or files on disk.

The source of the weights determines padding, batch norm's epsilon and MnasNet-small's first residual, even if the
named architecture differs, so that outputs equal the source model's. Code in a file never runs.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.cell_arch import CellArch
from mnas.formats import WEIGHTS_SUFFIX
from mnas.metadata import ModelMetadata
from mnas.nn.checkpoint import WouldRunError, read_bytes, read_checkpoint
from mnas.nn.layouts import LAYOUTS, StateDictLayout, layout_of, trained_arch
from mnas.nn.network import Network, build_network
from mnas.nn.state_dicts import find_weights
from mnas.nn.weights_info import is_weights_file, read_weights_info
from mnas.zoo.architectures import ZOO

TIMM = {
    "mnasnet-a1@0.5": "semnasnet_050",
    "mnasnet-a1@0.75": "semnasnet_075",
    "mnasnet-a1": "semnasnet_100",
    "mnasnet-a1@1.4": "semnasnet_140",
    "mnasnet-b1@0.5": "mnasnet_050",
    "mnasnet-b1@0.75": "mnasnet_075",
    "mnasnet-b1": "mnasnet_100",
    "mnasnet-b1@1.4": "mnasnet_140",
    "mnasnet-small": "mnasnet_small",
    "mobilenetv2@0.35": "mobilenetv2_035",
    "mobilenetv2@0.5": "mobilenetv2_050",
    "mobilenetv2@0.75": "mobilenetv2_075",
    "mobilenetv2": "mobilenetv2_100",
    "mobilenetv2@1.4": "mobilenetv2_140",
    "mobilenetv2-110d": "mobilenetv2_110d",
    "mobilenetv2-120d": "mobilenetv2_120d",
}
"""Our name -> timm's; timm does not have weights for all of them."""

TORCHVISION = {
    "mnasnet-b1@0.5": "mnasnet0_5",
    "mnasnet-b1@0.75": "mnasnet0_75",
    "mnasnet-b1": "mnasnet1_0",
    "mnasnet-b1@1.3": "mnasnet1_3",
    "mobilenetv2": "mobilenet_v2",
}
"""Our name -> torchvision's."""

_SHOWN = 3


def load_pretrained(
    source: str, arch: Architecture, num_classes: int | None, *, name: str, new_classifier: bool = False
) -> Network:
    """Return the network of `arch` with the weights of `source`, in evaluation mode, on the CPU.

    The network's own `arch` has the source model's padding and batch norm, so that outputs are equal (`arch_changes`
    lists the differences), and the strides and dropout of the argument. Supported layouts are timm's, torchvision's,
    pytorchcv's and ours (for cells only ours), plain or under "state_dict", "model" (or their averages), with or
    without DDP's prefixes.

    Args:
        source: `timm` or `torchvision` (which download), or the path of a .safetensors, .pth, .pt or .bin file.
        num_classes: number of outputs; None: as many as the weights have.
        name: the user's name for `arch`; a zoo name for `timm` and `torchvision`.
        new_classifier: give the classifier fresh weights, from torch's global generator, instead of the source's.

    Raises:
        ValueError: the source is missing or unreadable, contains code, or has tensors that do not fit; one line.
    """
    if isinstance(arch, CellArch):
        return _own_cells(source, arch, num_classes, name, new_classifier)
    tensors = _read(source, name)
    origin = f"{source}'s {name}" if source in ("timm", "torchvision") else repr(source)
    layout = layout_of(tensors)
    if layout is None:
        titles = ", ".join(layout.title for layout in LAYOUTS)
        raise ValueError(f"the tensors of {origin} must be named as in {titles}, but got {_some(list(tensors))}")
    arch = _with_recorded(source, _as_trained(arch, layout, tensors), name)
    classes = tensors.get(f"{layout.modules(arch, tensors)['classifier']}.bias")
    there = len(classes) if classes is not None and classes.ndim == 1 else None
    if num_classes is None:
        num_classes = there or 1  # if it has none, the check below reports the missing tensors
    network = build_network(arch, num_classes)
    _fill(network, tensors, layout.modules(arch, tensors), new_classifier, f"{origin} for {name}")
    return network.eval()


def pretrained_info(source: str, network: Network, *, name: str, classes: Sequence[str] | None = None) -> ModelMetadata:
    """Return the metadata of `network`, which `load_pretrained` made from the same `source` and `name`.

    Mean, standard deviation, size and crop are those of the source model's evaluation, or ImageNet's usual ones for a
    file by other authors, which does not contain them. `accuracy` comes from a file written by mnas, and is None for
    other files, because mnas has not scored them.

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
    if source == "timm":
        return _download_timm(name)
    if source == "torchvision":
        return _download_torchvision(name)
    path = Path(source)
    if not path.is_file():
        fault = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
        raise ValueError(
            f"--weights must be timm, torchvision or a .safetensors, .pth, .pt or .bin file, but got {source!r}, "
            f"which {fault}"
        )
    if path.suffix == WEIGHTS_SUFFIX:
        try:
            return _tensors(safetensors.torch.load_file(path), source)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"weights file {source!r} is damaged or not in safetensors format: {error}") from None
    return _tensors(_read_torch(path), source)


def _read_torch(path: Path) -> object:
    """Return the content of a checkpoint as `read_checkpoint` does. Never runs code from the file."""
    try:
        return read_checkpoint(path)
    except WouldRunError as error:
        raise _would_run(str(path), str(error)) from None
    except Exception as error:  # damaged archives and pickles raise many types
        script = "TorchScript" in str(error)
        reason = (
            "is TorchScript, which is code; save its state_dict() instead"
            if script
            else "is damaged or was not written by torch.save"
        )
        raise ValueError(f"weights file {str(path)!r} {reason}") from None


def _would_run(source: str, code: str) -> ValueError:
    name = "".join(letter for letter in code if letter.isprintable())[:100]
    return ValueError(
        f"a weights file must contain tensors only, but {source!r} calls {name}, which mnas does not run; "
        "save the model's state_dict() instead"
    )


def _tensors(saved: object, source: str) -> dict[str, Tensor]:
    """Return the state dict in a file's content, unnested and without wrappers' prefixes, with floats as float32."""
    try:
        weights = find_weights(saved, source)
    except WouldRunError as error:
        raise _would_run(source, str(error)) from None
    size = Path(source).stat().st_size
    if read_bytes(weights) > 4 * size:  # tied weights share bytes, but so could any number of tensors
        raise ValueError(f"weights file {source!r} is damaged: its tensors must not be larger than the file")
    try:
        tensors = {key: value if isinstance(value, Tensor) else value.tensor() for key, value in weights.items()}
    except Exception:
        raise ValueError(f"weights file {source!r} is damaged or was not written by torch.save") from None
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def _download_timm(name: str) -> dict[str, Tensor]:
    import timm

    model = _model_name("timm", TIMM, name)
    if not timm.get_pretrained_cfg(model).has_weights:
        having = [ours for ours, theirs in TIMM.items() if timm.get_pretrained_cfg(theirs).has_weights]
        raise ValueError(f"timm has weights for {', '.join(having)}, but got {name!r} ({model} has none)")
    retries = logging.getLogger("huggingface_hub")
    level = retries.level
    retries.setLevel(logging.ERROR)  # its two lines for each of a dozen retries add nothing to the error below
    try:
        return dict(timm.create_model(model, pretrained=True).state_dict())
    except Exception as error:  # the network stacks below raise errors of their own
        raise _not_downloaded("timm", model, error) from None
    finally:
        retries.setLevel(level)


def _download_torchvision(name: str) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights

    model = _model_name("torchvision", TORCHVISION, name)
    try:
        return dict(get_model_weights(model).DEFAULT.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:
        raise _not_downloaded("torchvision", model, error) from None


def _not_downloaded(library: str, model: str, error: Exception) -> ValueError:
    text = " ".join(str(error).split()).split(". ")[0][:200] or type(error).__name__
    return ValueError(
        f"{library} could not download the weights of {model}: {text}; give them as a file instead (--weights FILE)"
    )


def _model_name(library: str, models: Mapping[str, str], name: str) -> str:
    """Return the library's model of a zoo name; its output stride (`/s8`) does not affect weights."""
    model = models.get(_zoo_name(name))
    if model is None:
        raise ValueError(f"{library} has the networks {', '.join(models)}, but got {name!r}")
    return model


def _zoo_name(name: str) -> str:
    """Return `mnasnet-a1@0.5` for `mnasnet-a1@0.50/s8`; other kinds of names stay almost unchanged."""
    base, _, width = name.partition("/")[0].partition("@")
    try:
        return base if not width or float(width) == 1 else f"{base}@{float(width):g}"
    except ValueError:
        return name


# Fitting tensors to the network


def _as_trained(arch: Arch, layout: StateDictLayout, tensors: Mapping[str, Tensor]) -> Arch:
    small = ZOO["mnasnet-small"].arch
    assert isinstance(small, Arch)
    arch = trained_arch(arch, layout, small=_shape(arch) == _shape(small))
    if layout.mark == "layers.0.weight":
        # The first version of torchvision's MNASNet scaled neither the stem nor the first block.
        widths = [tensors[key].shape[0] for key in ("layers.0.weight", "layers.6.weight") if key in tensors]
        if widths == [32, 16]:
            blocks = (replace(arch.blocks[0], filters=16), *arch.blocks[1:])
            arch = replace(arch, stem_filters=32, blocks=blocks)
    return arch


def _shape(arch: Arch) -> object:
    """Return an architecture without its widths and strides, for comparison."""
    return [(b.op, b.kernel, b.layers, b.expansion, b.mid_filters, b.se_ratio) for b in arch.blocks]


def _with_recorded(source: str, arch: Arch, name: str) -> Arch:
    """Return the architecture recorded in a file written by mnas with the strides and dropout of `arch`, or `arch`."""
    info = _recorded(source)
    if info is None:
        return arch
    assert isinstance(info.arch, Arch)  # cell networks have no layout, so they never get here
    if _sizes(info.arch) != _sizes(arch):
        raise ValueError(
            f"{source!r} must contain weights of {name}, but got those of another architecture: "
            f"{_some(arch_changes(arch, info.arch).split(', '))}"
        )
    pairs = zip(info.arch.blocks, arch.blocks, strict=True)
    blocks = tuple(replace(block, stride=named.stride) for block, named in pairs)
    return replace(info.arch, blocks=blocks, stem_stride=arch.stem_stride, dropout=arch.dropout)


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
    shapes = {key: tensors[key].shape for key in wanted if key in tensors and key not in skipped}
    wrong = [key for key, shape in shapes.items() if shape != wanted[key].shape]
    other_classes = [key for key in wrong if key in classifier and shapes[key][1:] == wanted[key].shape[1:]]
    if wrong and other_classes == wrong and not missing and not unexpected:
        raise ValueError(
            f"the weights of {what} have {len(tensors[wrong[0]])} classes, but {len(wanted[wrong[0]])} are required; "
            "to replace the classifier, train with mnas train --preset finetune"
        )
    if missing or unexpected or wrong:
        words = [f"{key} {tuple(shapes[key])} instead of {tuple(wanted[key].shape)}" for key in wrong]
        lists = (("missing", missing), ("unexpected", unexpected), ("of another shape", words))
        faults = "; ".join(f"{len(items)} {title} ({_some(items)})" for title, items in lists if items)
        raise ValueError(f"the weights of {what} must fit the architecture, but got {faults}")
    network.load_state_dict({ours[key]: tensors[key] for key in shapes}, strict=False)


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

    facts: dict[str, Any] = {
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "input_size": 224,
        "crop": 0.875,
    }
    if source == "timm":
        import timm

        config = timm.get_pretrained_cfg(_model_name("timm", TIMM, name))
        facts = {"mean": config.mean, "std": config.std, "input_size": config.input_size[-1], "crop": config.crop_pct}
    elif source == "torchvision":
        from torchvision.models import get_model_weights

        view = get_model_weights(_model_name("torchvision", TORCHVISION, name)).DEFAULT.transforms()
        facts = {"mean": tuple(view.mean), "std": tuple(view.std), "input_size": view.crop_size[0]}
        facts["crop"] = view.crop_size[0] / view.resize_size[0]
    classes = tuple(MobileNet_V2_Weights.DEFAULT.meta["categories"])  # timm uses the same order
    return ModelMetadata(arch=arch, classes=classes, accuracy=None, **facts)


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
