"""Cache of searches in the user's cache folder, so that an interrupted bench can be resumed.

The key of a search contains everything that determines it: the benchmark's content, the controller and its settings,
the seed, and the code that it runs. It does not contain the number of trials, because trial n is the same for any
number: a longer search also serves a shorter one.
"""

import hashlib
import importlib.metadata
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mnas import version
from mnas.atomic import write_atomic
from mnas.bench.contender import Contender
from mnas.bench.searched import Searched
from mnas.bench.sources import sources_of
from mnas.controller.named import CONTROLLERS
from mnas.evaluate.benchmark import Benchmark

_COMMON = (
    *("bench/searched.py", "bench/contender.py", "objective.py", "evaluate/benchmark.py", "evaluate/regressor.py"),
    *("controller/closed.py", "controller/named.py", "controller/sampler.py", "controller/view.py"),
)
"""Sources that matter to every search, besides a controller's own and its imports."""
_LIBRARIES = ("numpy", "optuna", "scikit-learn", "scipy", "torch")


class Cache:
    """Searches of one benchmark in a folder, which is created for the first of them.

    Code that changes while the object exists makes no difference to its keys: the searches run the earlier code.
    """

    def __init__(self, folder: Path, benchmark: Benchmark) -> None:
        self._folder = folder
        space = {name: list(d.choices) for name, d in benchmark.space.items()}
        self._benchmark: tuple[str, dict[str, list[Any]]] = (benchmark.content, space)
        self._code: dict[str, str] = {}
        """Controller -> hash of its code."""

    def load(self, contender: Contender, trials: int) -> Searched | None:
        """Return the search's first `trials` trials, or None if the cached search is missing, shorter or damaged."""
        try:
            searched = Searched.from_bytes(self._path(contender).read_bytes())
        except (OSError, ValueError):
            return None
        sizes = [len(choices) for choices in self._benchmark[1].values()]
        if searched.indices.shape[1] != len(sizes) or not (searched.indices < sizes).all():
            return None
        return searched.first(trials) if len(searched.accuracies) >= trials else None

    def keep(self, contender: Contender, searched: Searched) -> None:
        """Write a search to the cache. Raises ValueError where the folder cannot be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path(contender), searched.to_bytes())
        except OSError as error:
            raise ValueError(
                f"the cache folder must be writable and have free space, but got {str(self._folder)!r} "
                f"({error.strerror or error}); free some space or set XDG_CACHE_HOME"
            ) from None

    def _path(self, contender: Contender) -> Path:
        name = contender.controller
        if name not in self._code:
            self._code[name] = code_version(name)
        key = [self._benchmark, asdict(contender), self._code[name]]
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self._folder / f"{digest[:32]}.npz"


def code_version(controller: str) -> str:
    """Return a hash of the sources and libraries that a search by `controller` runs.

    For a `module:factory`, the hash includes that module and all modules that it imports, except for installed
    libraries. The module must be importable (`find_controller` checks it).
    """
    root = Path(version.__file__).parent
    digest = hashlib.sha256()
    files = [root / file for file in _COMMON]
    if controller not in CONTROLLERS:
        files += sources_of(controller.partition(":")[0])
    elif isinstance(make := CONTROLLERS[controller], type):
        files += sources_of(make.__module__)
    for line in sorted(
        f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in dict.fromkeys(files)
    ):
        digest.update(line.encode())
    for library in _LIBRARIES:
        digest.update(f"{library} {importlib.metadata.version(library)}\n".encode())
    return digest.hexdigest()
