"""`mnas.latency` and `mnas.fit_latency`: measure and predict latencies on a device, from Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnas.api.keywords import names_keywords
from mnas.api.lists import joined
from mnas.api.saying import SAY, Say, silence
from mnas.measure.fit import LatencyFit, LatencyFitSettings
from mnas.measure.fit import fit_latency as run_fit
from mnas.measure.result import ModelLatency
from mnas.measure.run import measure_models
from mnas.measure.settings import LatencySettings
from mnas.settings import from_options, signature_of


@names_keywords
def latency(archs: str | Path | Sequence[str | Path], *, say: Say = silence, **options: Any) -> list[ModelLatency]:
    """Measure the latency of architectures and files on a device, relative to MobileNetV2 at the same input size.

    Args:
        archs: named network (mnasnet-a1), trial (runs/NAME#17), block strings or model file, or several of them.
        say: function that receives lines of text about the device, such as `print`.
        options: options of `mnas latency --help-all`, with underscores: `device`, `runtime`, `input_size`, `int8`, ...

    Returns:
        A record for each model in each runtime; `latency` has milliseconds and ratio with their 95 % intervals.

    Raises:
        ValueError: an option is unknown or out of range, or a model cannot be measured.
        ImportError: a runtime's package is missing.
        MeasurementError, UnitError: the reference cannot be measured; the device cannot be used.

    Examples:
        >>> [model] = mnas.latency("mnasnet-small@0.25", input_size=32, classes=10, budget_s=0.1)
        >>> model.latency.latency_ms > 0
        True
        >>> model.params
        125534
    """
    names = (archs,) if isinstance(archs, str | Path) else tuple(archs)
    options = joined(options, "input_size", "width_multiplier", "runtime")
    settings = from_options(LatencySettings, {"archs": tuple(map(str, names)), **options})
    result = measure_models(settings, progress=silence, say=say)
    result.require_all()
    return list(result.models)


@names_keywords
def fit_latency(*, say: Say = silence, **options: Any) -> LatencyFit:
    """Measure a designed sample of a search space on a device, and fit a latency predictor for all of its networks.

    The same call resumes an interrupted fit.

    Args:
        say: function that receives lines of text about the device and the progress, such as `print`.
        options: options of `mnas latency fit --help-all`, with underscores: `space`, `device`, `samples`, `out`, ...

    Returns:
        The predictor and its file, which `mnas.search(latency="predicted", predictor=...)` takes.

    Raises:
        ValueError: an option is unknown or out of range, or the file exists already.
        MeasurementError, UnitError: the reference cannot be measured; the device cannot be used.

    Examples:
        >>> fit = mnas.fit_latency(
        ...     space="tiny.toml", input_size=32, classes=10, samples=20, budget_s=0.05, out="tiny.json"
        ... )
        >>> len(fit.predictor.samples)
        20
    """
    return run_fit(from_options(LatencyFitSettings, options), progress=silence, say=say)


latency.__signature__ = signature_of(  # type: ignore[attr-defined]
    LatencySettings, returns=list[ModelLatency], more=(SAY,)
)
fit_latency.__signature__ = signature_of(  # type: ignore[attr-defined]
    LatencyFitSettings, returns=LatencyFit, more=(SAY,)
)
