"""`BulkStorage` writes the rows that Optuna itself writes, in fewer statements."""

import sqlite3

import pytest
from optuna.distributions import CategoricalDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from mnas.study.storage import BulkStorage, use_pragmas

SPACE = {"op": CategoricalDistribution(["conv", "mbconv", 3, 0.5]), "se": CategoricalDistribution([0.0, 0.25, None])}
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)


def trial(state=TrialState.RUNNING, values=None, **attributes):
    return create_trial(
        state=state,
        values=values,
        params={"op": 3, "se": None},
        distributions=SPACE,
        user_attrs={"arch": {"blocks": [1, 2]}, "name": "a 'quoted' \N{SNOWMAN}", **attributes},
        system_attrs={"generation": 4},
    )


def test_every_row_equals_the_one_that_optuna_writes(tmp_path):
    trials = [
        trial(),
        trial(TrialState.COMPLETE, [0.5, float("inf")]),
        trial(TrialState.PRUNED),
        create_trial(state=TrialState.RUNNING),
    ]
    dumps = []
    for kind in (RDBStorage, BulkStorage):
        file = tmp_path / kind.__name__
        storage = kind(f"sqlite:///{file}")
        study = storage.create_new_study(DIRECTIONS, "s")
        numbers = [storage.get_trial(storage.create_new_trial(study, template)).number for template in trials]
        assert numbers == [0, 1, 2, 3]
        storage.set_trial_user_attr(1, "later", [1])
        storage.engine.dispose()
        with sqlite3.connect(file) as connection:
            dumps.append(list(connection.iterdump()))
    assert sum('INSERT INTO "trial_params"' in line for line in dumps[0]) == 6
    assert dumps[0] == dumps[1]


def test_a_trial_that_cannot_be_written_leaves_nothing(tmp_path):
    storage = BulkStorage(f"sqlite:///{tmp_path / 'study.db'}")
    use_pragmas(storage, "journal_mode=WAL")
    study = storage.create_new_study(DIRECTIONS, "s")
    with pytest.raises(TypeError, match="not JSON serializable"):
        storage.create_new_trial(study, trial(what=object()))
    assert storage.get_all_trials(study) == []
    storage.create_new_trial(study, trial())
    [stored] = storage.get_all_trials(study)
    assert stored.params == {"op": 3, "se": None}
    assert "what" not in stored.user_attrs
