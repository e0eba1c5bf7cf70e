"""Load the weights for `mnas train --weights`, and find a split that keeps their images out of validation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.data.batches import Batches
from mnas.data.load import open_source
from mnas.data.scored import offered_by
from mnas.data.shards.index import is_shards
from mnas.folders import user_cache_dir
from mnas.formats import WEIGHTS_SUFFIX
from mnas.labels import same_names
from mnas.metadata import Triple
from mnas.nn.digest import weights_digest
from mnas.nn.inherit.cuts import require_cut
from mnas.nn.network import Network
from mnas.nn.pretrained import NoClassifierError, load_pretrained, pretrained_info, same_sizes
from mnas.nn.weights_info import is_weights_file, read_weights_info
from mnas.space.candidates import Parent
from mnas.space.cuts import can_be_cut
from mnas.training_data import TrainedOn, printable_name

Say = Callable[[str], None]


def trained_on(weights: str, say: Say) -> TrainedOn:
    """Return the trainings that a file of weights records; print a warning for a file of mnas that records none."""
    if not weights.endswith(WEIGHTS_SUFFIX):
        return ()
    try:
        info = read_weights_info(Path(weights))
    except ValueError:
        return ()  # foreign or damaged: loading it raises the error
    if not info.trained_on:
        say(
            f"{weights} does not record its training data. If it was trained on these images, use the --seed of that "
            "training, so that the validation images are not among its training images."
        )
    return info.trained_on


def held_out_seed(
    weights: str,
    earlier: TrainedOn,
    data: str,
    *,
    seed: int,
    max_images_per_class: int,
    data_dir: Path | None,
    download: bool,
    say: Say,
) -> int:
    """Return the seed of the split: `seed`, or the one that held images of this data out when `weights` was trained.

    Raises:
        ValueError: the data cannot be opened, or `weights` was trained on images of this data that only another
            --max-images-per-class selects.
    """
    if not earlier or is_shards(data):  # shards have a validation part
        return seed
    source = open_source(data, user_cache_dir() / "downloads" if data_dir is None else data_dir, download)
    record = offered_by(source, source.parts()).record_in(earlier)
    if record is None and any(one.name == printable_name(source.name) for one in earlier):
        say(
            f"the images of {source.name} have changed since {weights} was trained on them, so validation images may "
            "be among its training images"
        )
    if record is None or not record.held_out:
        return seed
    if record.max_images_per_class != max_images_per_class:
        raise ValueError(
            f"--max-images-per-class must be {record.max_images_per_class}, as in the training of {weights} on these "
            f"images, but got {max_images_per_class}, which would validate on its training images"
        )
    if record.seed != seed:
        say(f"validation images: the held-out images of the training of {weights} (seed {record.seed})")
    return record.seed


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """A network with known weights; picklable, so that a worker process opens them for itself."""

    name: str
    """The user's name for the network; that of a named network for the sources that are not files."""
    arch: Architecture
    weights: str
    """Source of the weights, as `load_pretrained` takes it."""


@dataclass(frozen=True, kw_only=True)
class CutSource:
    """A network that is cut from a parent; picklable."""

    parent: WeightsSource
    """The parent, fine-tuned on the classes of the data."""
    arch: Architecture


def whole_network(source: WeightsSource) -> CutSource | None:
    """Return the source's network as a cut of the larger one in a file of mnas; None: the file is taken as it is.

    Raises ValueError where a file of mnas cannot be read.
    """
    path = Path(source.weights)
    if not (source.weights.endswith(WEIGHTS_SUFFIX) and path.is_file() and is_weights_file(path)):
        return None
    larger, arch = read_weights_info(path).arch, source.arch
    if not isinstance(larger, Arch) or not isinstance(arch, Arch) or same_sizes(larger, arch):
        return None
    arch = replace(arch, padding=larger.padding, bn_epsilon=larger.bn_epsilon)
    try:
        require_cut(larger, arch)
    except ValueError:
        return None  # it is another architecture, which loading it says
    return CutSource(parent=replace(source, arch=larger), arch=arch)


def initial_network(source: WeightsSource, batches: Batches, seed: int) -> Network:
    """Return the initial network of a training on `batches`, as `network_for` gives it.

    Sets the normalisation of the images to that of the weights. Raises ValueError as `load_pretrained` does.
    """
    network, (batches.mean, batches.std) = network_for(source, batches.classes, seed)
    return network


def network_for(source: WeightsSource, classes: Sequence[str], seed: int) -> tuple[Network, tuple[Triple, Triple]]:
    """Return the network with its weights, and the mean and deviation by which these expect images to be normalised.

    It gets a new classifier unless its classes are those of the data. Raises ValueError as `load_pretrained` does.
    """
    weights, arch, name = source.weights, source.arch, source.name

    def adapted() -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = load_pretrained(weights, arch, len(classes), name=name, new_classifier=True)
        # With random weights, the first gradients would change the features as much as the classifier.
        torch.nn.init.zeros_(network.classifier.weight)
        return network

    try:
        network = load_pretrained(weights, arch, None, name=name)
    except NoClassifierError:
        network = adapted()
        return network, pretrained_info(weights, network, name=name, classes=classes).normalisation
    count = network.classifier.out_features
    try:
        info = pretrained_info(weights, network, name=name)
    except ValueError:  # weights without class names
        info = pretrained_info(weights, network, name=name, classes=[f"class {i}" for i in range(count)])
    is_imagenet = count == len(classes) == 1000  # ImageNet's folders use identifiers, its weights words
    if not same_names(info.classes, classes) and not is_imagenet:
        network = adapted()
    return network, info.normalisation


def parent_of(source: WeightsSource) -> Parent:
    """Return the parent that a search takes from a source of weights. Raises ValueError as `load_pretrained` does."""
    network, _ = network_for(source, ("any",), 0)
    return Parent(name=source.name, arch=network.arch, digest=weights_digest(network))


def tuned_sources(parents: Sequence[Parent], run: Path) -> dict[str, WeightsSource]:
    """Return, for each parent that can be cut, where its fine-tuned weights are or will be in the folder of a run."""
    return {
        parent.name: WeightsSource(name=parent.name, arch=parent.arch, weights=str(parent.tuned_weights(run)))
        for parent in parents
        if can_be_cut(parent.arch)
    }
