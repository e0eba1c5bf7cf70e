"""Write the models of a finished search as files: front/N for every result on its front."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from mnas.atomic import write_atomic
from mnas.objective import Objective
from mnas.study import StudyWriter, TrialRecord
from mnas.study.check import one_line
from mnas.study.results import table_results, weights_of
from mnas.tflite.writer import write_tflite


def export_front(run: StudyWriter, objectives: Sequence[Objective]) -> dict[str, str]:
    """Write front/N/arch.json for every result of the run's table, and model.tflite where its weights were kept.

    Returns label -> reason for each result that could not be written; the other results are still written.

    Raises:
        OSError: the folder front/ cannot be made.
    """
    folder = run.path / "front"
    folder.mkdir(exist_ok=True)
    front = {trial.label: trial for trial in table_results(run, objectives)}
    for stale in folder.iterdir():
        if stale.name not in front:
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    failed = {}
    for label, trial in front.items():
        try:
            _export(run, trial, folder / label)
        except Exception as error:  # whatever fails, the other results are exported first
            failed[label] = one_line(error if isinstance(error, ValueError | OSError) else repr(error))
            (folder / label / "model.tflite").unlink(missing_ok=True)  # left by an earlier end of this search
    return failed


def _export(run: StudyWriter, trial: TrialRecord, folder: Path) -> None:
    from mnas.nn.weights import load_weights
    from mnas.nn.weights_info import read_weights_info

    folder.mkdir(exist_ok=True)
    arch = trial.arch
    write_atomic(folder / "arch.json", arch.to_json())
    weights = weights_of(run.path, trial)
    if not weights.exists():
        return
    network, info = load_weights(weights, fingerprint=arch.fingerprint), read_weights_info(weights)
    mean, std = info.normalisation
    model = write_tflite(network, info.input_size, labels=info.classes, mean=mean, std=std, trained_on=info.trained_on)
    write_atomic(folder / "model.tflite", model)
