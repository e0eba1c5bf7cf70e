"""Settings of `mnas proxy-check`: the architectures to train, the proxy tasks and the long training."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from mnas.data.dataset import Dataset
from mnas.data.mirror import as_begun, mirrors, to_store
from mnas.data.options import TrainingDataOptions
from mnas.evaluate.config import ProxyConfig
from mnas.proxycheck.plan import Setting, settings_of, smaller_sizes
from mnas.proxycheck.results import FILE_NAME
from mnas.readers import stored_settings
from mnas.search.settings import SearchSettings
from mnas.space.space import Space

Auto = Literal["auto"]
REFERENCE_TIMES = 4
"""Ratio of the reference's epochs to the longest proxy's, unless its epochs are given."""


@dataclass(frozen=True, kw_only=True)
class ProxyCheckSettings:
    """A proxy check. Raises ValueError where a field is out of range."""

    images: Annotated[TrainingDataOptions, Parameter(name="*")]
    """Training and validation images."""
    out: Path = Path("runs/proxy-check")
    """Folder for the results of the trainings and for result.json."""

    architectures: int = 10
    """Number of architectures to train, spread over the space's range of multiply-accumulates."""
    also: str = ""
    """Further networks to train, separated by commas: named networks (mnasnet-a1), trials (runs/NAME#17) or .json
    files."""
    seeds: int = 2
    """Number of trainings of each architecture in each proxy task; with one, the noise between seeds is unknown."""
    reference_epochs: int | Auto = "auto"
    """Number of epochs of the long training, the reference; auto: four times those of the longest proxy task."""

    try_epochs: str = "auto"
    """Values to try besides --epochs, separated by commas; auto: a half and a fifth of --epochs."""
    try_image_shares: str = "auto"
    """Values to try besides --image-share, separated by commas; auto: a half and a quarter of --image-share."""
    try_input_sizes: str = "auto"
    """Values to try besides --input-size, separated by commas; auto: 3/4 and 1/2 of --input-size."""
    all_combinations: bool = False
    """Try every combination of epochs, image shares and input sizes, instead of changing one of them at a time."""

    space: str = "mnasnet"
    """Search space: mnasnet, mnasnet-no-se, per-layer, mobilenetv4, cell, a TOML file, or module:factory."""
    width: float = 1.0
    """Width multiplier of the skeleton (the filters, layers and strides on which the space is built)."""
    input_size: int | Auto = "auto"
    """Input size of the first proxy task and of the long training, in pixels; auto: the size of the data set's images,
    up to 224."""
    output_stride: int | Auto = "auto"
    """Input pixels per pixel of the last feature map, the same for all input sizes; auto: the value that mnas search
    chooses at --input-size."""
    proxy: Annotated[ProxyConfig, Parameter(name="*")] = field(default_factory=ProxyConfig)
    """First proxy task, from which the others differ."""
    workers: int | Auto = "auto"
    """Number of trainings in parallel; auto: as many as the cores allow."""
    seed: int = 0
    """Random seed of the architectures, the held-out images and the trainings."""

    def __post_init__(self) -> None:
        if self.architectures < 3:
            raise ValueError(f"--architectures must be 3 or more for a ranking, but got {self.architectures}")
        if self.seeds < 1:
            raise ValueError(f"--seeds must be 1 or more, but got {self.seeds}")
        if self.reference_epochs != "auto" and self.reference_epochs < 1:
            raise ValueError(f"--reference-epochs must be 1 or more, but got {self.reference_epochs}")
        self.search_settings()  # makes the checks of a search
        self.ways(self.input_size if self.input_size != "auto" else 224, 1)

    def search_settings(self, setting: Setting | None = None) -> SearchSettings:
        """Return the settings of a search with this proxy task; None stands for the first one."""
        return SearchSettings(
            images=self.images,
            parent="",
            space=self.space,
            width=self.width,
            input_size=str(self.input_size if setting is None else setting.input_size),
            output_stride=self.output_stride,
            proxy=self.proxy if setting is None else setting.config(self.proxy),
            workers=self.workers,
            seed=self.seed,
        )

    def identity(self, space: Space, dataset: Dataset) -> dict[str, Any]:
        """Return the settings that must not change when a check is resumed, since its trainings must be comparable."""
        proxy = dataclasses.asdict(self.proxy)
        for tried in ("epochs", "image_share", "mirror"):
            del proxy[tried]
        mirrored = mirrors(self.proxy.mirror, dataset.flip, dataset.classes)
        proxy |= to_store(mirrored, dataset.flip)
        proxy["accelerator"] = self.proxy.device().type
        content = {"data": self.images.data, "data_content": dataset.fingerprint, "seed": self.seed}
        return {**content, "input_size": dataset.input_size, "space": space.to_dict(), "proxy": proxy}

    def as_begun(self, dataset: Dataset) -> "ProxyCheckSettings":
        """Return the settings with images mirrored as in the check that they resume."""
        stored = stored_settings(self.out / FILE_NAME, "config", "proxy")
        mirror = as_begun(self.proxy.mirror, stored, dataset.flip, dataset.classes)
        return dataclasses.replace(self, proxy=dataclasses.replace(self.proxy, mirror=mirror))

    def ways(self, input_size: int, output_stride: int) -> tuple[Setting, list[Setting]]:
        """Return the reference and the proxies, with the options' own setting first."""
        base = Setting(epochs=self.proxy.epochs, image_share=self.proxy.image_share, input_size=input_size)
        epochs = [e for e in (base.epochs // 2, base.epochs // 5) if e]
        if self.try_epochs != "auto":
            epochs = _numbers("--try-epochs", self.try_epochs, int, 1, 10_000)
        shares = [base.image_share / 2, base.image_share / 4]
        if self.try_image_shares != "auto":
            shares = _numbers("--try-image-shares", self.try_image_shares, float, 1e-6, 1)
        sizes = smaller_sizes(input_size, output_stride)
        if self.try_input_sizes != "auto":
            sizes = _numbers("--try-input-sizes", self.try_input_sizes, int, 8, 1024)
        settings = settings_of(base, epochs, shares, sizes, every=self.all_combinations)
        longest = max(setting.epochs for setting in settings)
        reference = REFERENCE_TIMES * longest if self.reference_epochs == "auto" else self.reference_epochs
        if reference <= longest:
            raise ValueError(
                f"--reference-epochs must be greater than {longest}, the epochs of the longest proxy task, but got "
                f"{reference}"
            )
        return Setting(epochs=reference, image_share=1.0, input_size=input_size), settings


def _numbers(flag: str, text: str, kind: type[int] | type[float], low: float, high: float) -> list[Any]:
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(low <= value <= high for value in values):
        what = "integers" if kind is int else "numbers"
        raise ValueError(
            f"{flag} must be auto, or {what} from {low:g} to {high:g} separated by commas, but got {text!r}"
        )
    return values
