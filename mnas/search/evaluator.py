"""Evaluate a candidate in a worker process by the paper's proxy training; the process opens the images once."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mnas.architecture import Architecture
from mnas.data.dataset import Dataset
from mnas.evaluate.evaluation import Evaluation
from mnas.search.settings import SearchSettings
from mnas.study import RunError


@dataclass(frozen=True)
class ProxyEvaluator:
    """Trains a candidate in a worker process, which opens the cached data set once."""

    settings: SearchSettings
    input_size: int
    fingerprint: str
    """Fingerprint of the images that the search uses."""
    cached: tuple[str, str] | None = None
    """Content and key of the images; a worker opens the cache with them and need not list every file."""
    modules: ClassVar = ("mnas.evaluate.proxy",)

    def __call__(self, arch: Architecture, seed: int, weights_path: Path) -> Evaluation:
        return self.evaluate(arch, seed, weights_path)

    def evaluate(self, arch: Architecture, seed: int, weights_path: Path | None) -> Evaluation:
        """Return the result of `evaluate_proxy`; its exceptions propagate.

        Raises:
            RunError: the images differ from those that the search uses.
        """
        from mnas.evaluate.proxy import evaluate_proxy  # imports torch and timm, which the parent does not need

        dataset = _dataset_of(self.settings, self.cached)
        if (dataset.input_size, dataset.fingerprint) != (self.input_size, self.fingerprint):
            raise RunError(
                f"the images in {self.settings.images.data} changed during the search; start a new search with another "
                "--run"
            )
        return evaluate_proxy(arch, dataset, self.settings.proxy, seed, weights_path)


_opened: dict[SearchSettings, Dataset] = {}


def _dataset_of(settings: SearchSettings, cached: tuple[str, str] | None) -> Dataset:
    if settings not in _opened:
        _opened[settings] = settings.load_data(cached=cached)
    return _opened[settings]
