"""The study of a run: the stored state of a search, written by one process and read by any."""

from mnas.study.check import RunError, damaged, needed
from mnas.study.database import STUDY_NAME
from mnas.study.read import (
    FORMAT,
    RunState,
    Snapshot,
    is_trained,
    objectives_of,
    read_run,
    trained_path,
)
from mnas.study.record import Draft, Origin, State, TrialRecord
from mnas.study.records import best_for, count_imported, front_of
from mnas.study.run import (
    DERIVED,
    DIRECTIONS,
    Beginning,
    Standing,
    StudyWriter,
    begin_study,
    differences,
    open_run,
)

__all__ = [
    "DERIVED",
    "DIRECTIONS",
    "FORMAT",
    "STUDY_NAME",
    "Beginning",
    "Draft",
    "Origin",
    "RunError",
    "RunState",
    "Snapshot",
    "Standing",
    "State",
    "StudyWriter",
    "TrialRecord",
    "begin_study",
    "best_for",
    "count_imported",
    "damaged",
    "differences",
    "front_of",
    "is_trained",
    "needed",
    "objectives_of",
    "open_run",
    "read_run",
    "trained_path",
]
