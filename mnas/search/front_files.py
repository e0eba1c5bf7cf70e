"""Write the models of a finished search as files: front/N for every result on its front."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from mnas.atomic import write_atomic
from mnas.data.dataset import Dataset
from mnas.objective import Objective
from mnas.study import StudyWriter, TrialRecord
from mnas.study.check import one_line
from mnas.study.results import table_results, weights_of
from mnas.tflite.writer import write_tflite
from mnas.training_data import after_training


def export_front(run: StudyWriter, dataset: Dataset, objectives: Sequence[Objective]) -> dict[str, str]:
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
            _export(run, trial, folder / label, dataset)
        except Exception as error:  # whatever fails, the other results are exported first
            failed[label] = one_line(error if isinstance(error, ValueError | OSError) else repr(error))
            (folder / label / "model.tflite").unlink(missing_ok=True)  # left by an earlier end of this search
    return failed


def _export(run: StudyWriter, trial: TrialRecord, folder: Path, dataset: Dataset) -> None:
    from mnas.nn.weights import load_weights

    folder.mkdir(exist_ok=True)
    arch = trial.arch
    write_atomic(folder / "arch.json", arch.to_json())
    weights = weights_of(run.path, trial)
    if not weights.exists():
        return
    network = load_weights(weights, fingerprint=arch.fingerprint)
    model = write_tflite(
        network,
        dataset.input_size,
        labels=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        trained_on=after_training(dataset.training_data, ()),
    )
    write_atomic(folder / "model.tflite", model)
