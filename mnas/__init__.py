"""Platform-aware neural architecture search: MnasNet (Tan et al., CVPR 2019), and beyond.

    import mnas

    run = mnas.search(data="photos", run="runs/photos", trials=100)
    trained = mnas.train(run.name_of(run.best), data="photos", resume=True)
    [exported] = mnas.export(trained.weights, to="litert", overwrite=True)
    print(mnas.load(exported.path).predict("photo.jpg"))

Each function takes the options of the command with the same name as keyword arguments. Importing mnas is fast, because
a function's dependencies are imported when it is first called.
"""

import functools
import importlib
import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mnas.version import __version__

if TYPE_CHECKING:
    from mnas import detect
    from mnas.api.bench import bench
    from mnas.api.export import export
    from mnas.api.latency import fit_latency, latency
    from mnas.api.proxy_check import proxy_check
    from mnas.api.run import Run, open_run
    from mnas.api.search import search
    from mnas.api.train import train, train_best
    from mnas.predict.model import load_model as load
    from mnas.search.progress import Watcher
    from mnas.study.record import TrialRecord
    from mnas.train.watch import TrainWatcher

__all__ = [
    "Run",
    "TrainWatcher",
    "TrialRecord",
    "Watcher",
    "__version__",
    "bench",
    "detect",
    "export",
    "fit_latency",
    "latency",
    "load",
    "open_run",
    "proxy_check",
    "search",
    "train",
    "train_best",
]

_PLACES = {
    "Run": "mnas.api.run:Run",
    "TrainWatcher": "mnas.train.watch:TrainWatcher",
    "TrialRecord": "mnas.study.record:TrialRecord",
    "Watcher": "mnas.search.progress:Watcher",
    "fit_latency": "mnas.api.latency:fit_latency",
    "load": "mnas.predict.model:load_model",
    "open_run": "mnas.api.run:open_run",
    "proxy_check": "mnas.api.proxy_check:proxy_check",
    "train_best": "mnas.api.train:train_best",
}
"""Public name -> `module:attribute` that it is imported from."""

_FUNCTIONS = {
    "bench": "mnas.api.bench:bench",
    "search": "mnas.api.search:search",
    "export": "mnas.api.export:export",
    "latency": "mnas.api.latency:latency",
    "train": "mnas.api.train:train",
}
"""Package -> function of the same name.

Python makes every imported package an attribute of `mnas`, which hides a function of that name. So `_Facade` makes the
package itself callable."""


def _imported(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


class CallablePackage(ModuleType):
    """A package that is also the function of its name: calls, `help` and editors see that function."""

    @functools.cached_property
    def _function(self) -> Any:
        return _imported(_FUNCTIONS[self.__name__.removeprefix("mnas.")])

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function."""
        return self._function(*arguments, **options)

    @property
    def __signature__(self) -> Any:
        return self._function.__signature__

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        parameters = "".join(f"\n    {parameter}," for parameter in self.__signature__.parameters.values())
        name = self.__name__.rpartition(".")[2]
        return f"{name}({parameters}\n)\n\n{inspect.cleandoc(self._function.__doc__)}"


class _Facade(ModuleType):
    """The module `mnas`, which makes each package in `_FUNCTIONS` callable as soon as it is imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _FUNCTIONS and isinstance(value, ModuleType):
            value.__class__ = CallablePackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Facade


def __getattr__(name: str) -> object:
    if name in _FUNCTIONS or name == "detect":
        return importlib.import_module(f"mnas.{name}")
    if name in _PLACES:
        return _imported(_PLACES[name])
    raise AttributeError(f"module 'mnas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
