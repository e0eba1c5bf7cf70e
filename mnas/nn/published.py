"""Published weights of named networks: downloads of timm and torchvision, and packages of the extra `pretrained`."""

import importlib.metadata
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import torch
from torch import Tensor

from mnas.nn.packaged import packaged_file
from mnas.nn.weight_files import read_tensors
from mnas.zoo.weights import PACKAGES, TIMM, TORCHVISION, WeightsPackage, published_name

SOURCES = ("timm", "torchvision", "pretrained")
"""Values of --weights that are not files."""

Model = TypeVar("Model")


def published_tensors(source: str, name: str) -> dict[str, Tensor]:
    """Return the state dict of the network called `name` from one of `SOURCES`.

    timm and torchvision download it, unless an earlier download is in their cache.

    Raises:
        ImportError: the package with the weights is not installed.
        ValueError: the source has no weights of this network, or they cannot be downloaded; one line.
    """
    if source == "timm":
        return _timm_tensors(name)
    if source == "torchvision":
        return _torchvision_tensors(name)
    return read_tensors(packaged_file(package_of(name)))


def _timm_tensors(name: str) -> dict[str, Tensor]:
    import timm

    config = timm_config(name)
    model = config.architecture
    if not config.has_weights:
        having = [ours for ours in TIMM if timm_config(ours).has_weights]
        raise ValueError(f"timm has weights for {', '.join(having)}, but got {name!r} ({model} has none)")
    if (cached := _cached_by_timm(config)) is not None:
        return read_tensors(cached)
    retries = logging.getLogger("huggingface_hub")
    level = retries.level
    retries.setLevel(logging.ERROR)  # its two lines for each of a dozen retries add nothing to the error below
    try:
        _require_reachable(config)
        return dict(timm.create_model(model, pretrained=True).state_dict())
    except Exception as error:  # the network stacks below raise errors of their own
        from huggingface_hub.constants import HF_HUB_CACHE

        raise _not_downloaded("timm", model, name, HF_HUB_CACHE, error) from None
    finally:
        retries.setLevel(level)


def timm_config(name: str) -> Any:
    """Return timm's description of the weights of a zoo name. Raises ValueError where timm has no such classifier."""
    import timm

    model = of_library("timm", TIMM, name).name
    config = timm.get_pretrained_cfg(model)
    if config is None:
        version = importlib.metadata.version("timm")
        raise ValueError(f"timm {version} does not contain {model}, which has the weights of {name}; update timm")
    if not (config.num_classes and config.classifier):
        raise ValueError(f"the weights of {name} must be those of a classifier, but timm's {model} is none")
    return config


def _cached_by_timm(config: Any) -> Path | None:
    """Return the weights that an earlier download left in the cache of huggingface_hub or of torch.hub."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = (config.hf_hub_id or "").partition("@")
    names = (config.hf_hub_filename,) if config.hf_hub_filename else ("model.safetensors", "pytorch_model.bin")
    for file in names if repository else ():
        cached = try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(cached, str):  # it may also be a mark that the repository lacks the file
            return Path(cached)
    return _cached_by_torch(config.url) if config.url else None


def _cached_by_torch(url: str) -> Path | None:
    file = _torch_cache() / Path(urlsplit(url).path).name
    return file if file.is_file() else None


def _torch_cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _require_reachable(config: Any) -> None:
    """Raise an error where the Hugging Face Hub cannot be reached, which timm's download takes a minute to notice."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if not config.hf_hub_id:
        return
    try:
        get_hf_file_metadata(hf_hub_url(config.hf_hub_id.partition("@")[0], "config.json"), timeout=10)
    except Exception as error:
        if getattr(error, "response", None) is None:  # otherwise the server has answered
            raise


def _torchvision_tensors(name: str) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights

    model = of_library("torchvision", TORCHVISION, name)
    weights = get_model_weights(model).DEFAULT
    if (cached := _cached_by_torch(weights.url)) is not None:
        return read_tensors(cached)
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:
        raise _not_downloaded("torchvision", model, name, str(_torch_cache()), error) from None


def _not_downloaded(library: str, model: str, name: str, cache: str, error: Exception) -> ValueError:
    text = " ".join(str(error).split()).split(". ")[0][:200] or type(error).__name__
    installed = "use --weights pretrained, or " if published_name(name) in PACKAGES else ""
    return ValueError(
        f"{library} could not download the weights of {model}, which are not in the cache {cache}: {text}; "
        f"{installed}give them as a file instead (--weights FILE)"
    )


def package_of(name: str) -> WeightsPackage:
    """Return the package with the weights of a zoo name. Raises ValueError where the extra `pretrained` has none."""
    package = PACKAGES.get(published_name(name))
    if package is None:
        raise ValueError(f"--weights pretrained has the networks {', '.join(PACKAGES)}, but got {name!r}")
    return package


def of_library(library: str, models: Mapping[str, Model], name: str) -> Model:
    """Return the library's model of a zoo name; its output stride (`/s8`) does not affect weights."""
    model = models.get(published_name(name))
    if model is None:
        raise ValueError(f"{library} has the networks {', '.join(models)}, but got {name!r}")
    return model
