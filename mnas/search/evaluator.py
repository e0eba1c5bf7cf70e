"""Evaluate a candidate in a worker process, which opens the images once.

Random weights get the paper's proxy training. Known weights get a linear classifier, then fine-tuning. A network cut
from a fine-tuned parent is scored untrained, then trained with the parent as its teacher.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mnas.candidate import Candidate
from mnas.data.dataset import Dataset
from mnas.data.options import TrainingDataOptions
from mnas.evaluate.config import FeaturesConfig, ProxyConfig
from mnas.evaluate.evaluation import Evaluation, Step
from mnas.folders import user_cache_dir
from mnas.study import RunError
from mnas.train.initial import CutSource, WeightsSource


@dataclass(frozen=True, kw_only=True)
class CachedImages:
    """The images of a search at one input size, as a worker opens them: from the cache, without listing every file."""

    images: TrainingDataOptions
    input_size: int
    seed: int
    """Seed of the split."""
    fingerprint: str
    """Fingerprint of the images that the search uses."""
    content: str
    key: str
    """With `content`, what opens the cache entry."""

    @staticmethod
    def of(dataset: Dataset, images: TrainingDataOptions, seed: int) -> "CachedImages":
        """Return how a worker opens this data set."""
        return CachedImages(
            images=images,
            input_size=dataset.input_size,
            seed=seed,
            fingerprint=dataset.fingerprint,
            content=dataset.content,
            key=dataset.key,
        )

    def open(self) -> Dataset:
        """Return the images, opened once in this process. Raises RunError where they have changed."""
        if self not in _opened:
            cached = (self.content, self.key)
            _opened[self] = self.images.load(input_size=self.input_size, seed=self.seed, cached=cached)
        if _opened[self].fingerprint != self.fingerprint:
            raise RunError(
                f"the images in {self.images.data} changed during the search; start a new search with another --run"
            )
        return _opened[self]


_opened: dict[CachedImages, Dataset] = {}


@dataclass(frozen=True)
class ProxyEvaluator:
    """Evaluates a candidate in a worker process."""

    proxy: ProxyConfig
    images: Mapping[int, CachedImages]
    """Input size -> images of that size."""
    sources: Mapping[str, WeightsSource] = field(default_factory=dict)
    """Parent -> source of its weights."""
    cuts: Mapping[str, WeightsSource] = field(default_factory=dict)
    """Parent -> the file of its fine-tuned weights, where networks are cut from it."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules that a worker imports before its first task."""
        more = ("mnas.evaluate.features", "mnas.evaluate.finetuned") if self.sources else ()
        return ("mnas.evaluate.proxy", *more)

    def __call__(self, candidate: Candidate, step: Step, seed: int, weights_path: Path) -> Evaluation:
        return self.evaluate(candidate, step, seed, weights_path)

    def evaluate(self, candidate: Candidate, step: Step, seed: int, weights_path: Path | None) -> Evaluation:
        """Return the result of the step; exceptions of the evaluation propagate.

        Raises:
            RunError: the images differ from those that the search uses.
        """
        dataset = self.images[candidate.input_size].open()
        # these import torch and timm, which the parent process does not need
        if not candidate.parent:
            from mnas.evaluate.proxy import evaluate_proxy

            assert step == "training"
            return evaluate_proxy(candidate.arch, dataset, self.proxy, seed, weights_path)
        source = self.sources[candidate.parent]
        if tuned := self.cuts.get(candidate.parent):
            return self._cut(CutSource(parent=tuned, arch=candidate.arch), dataset, step, seed, weights_path)
        if step == "features":
            from mnas.evaluate.features import evaluate_features

            config = FeaturesConfig(accelerator=self.proxy.accelerator, threads=self.proxy.threads)
            return evaluate_features(source, dataset, config, folder=user_cache_dir() / "features").evaluation
        from mnas.evaluate.finetuned import evaluate_finetuned

        return evaluate_finetuned(source, dataset, self.proxy, seed, weights_path)

    def _cut(self, source: CutSource, dataset: Dataset, step: Step, seed: int, weights_path: Path | None) -> Evaluation:
        if step == "features":
            from mnas.evaluate.inherited import evaluate_inherited

            return evaluate_inherited(source, dataset, self.proxy)
        from mnas.evaluate.finetuned import evaluate_finetuned

        whole = self.images[max(self.images)].open()
        return evaluate_finetuned(source, dataset, self.proxy, seed, weights_path, whole=whole)
