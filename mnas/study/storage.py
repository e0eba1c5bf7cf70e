"""Where Optuna keeps a study in a database; written as Optuna writes it, but in fewer statements."""

import contextlib
import copy
import functools
import json
import signal
import threading
import types
from collections.abc import Iterator
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialModel
from optuna.trial import FrozenTrial
from sqlalchemy import column, table
from sqlalchemy.orm import Session

from mnas.children import ASKING

_PARAMS = table("trial_params", *map(column, ("trial_id", "param_name", "param_value", "distribution_json")))
_ATTRIBUTES = {
    name: table(f"trial_{name}_attributes", *map(column, ("trial_id", "key", "value_json")))
    for name in ("user", "system")
}
_json_of = functools.lru_cache(maxsize=1000)(distribution_to_json)


class BulkStorage(RDBStorage):
    """Optuna's, but what a new trial is given is written by one statement a table, in the transaction that makes it.

    Optuna's own asks the database three times for every parameter, which with 42 of them is most of what a search
    costs. What is stored is the same, but for one thing: that a parameter has had this distribution in the trials
    before is not looked up.
    """

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        if template_trial is None:
            return super().create_new_trial(study_id)
        bare = copy.copy(template_trial)
        bare.params, bare.distributions, bare.user_attrs, bare.system_attrs = {}, {}, {}, {}
        with self._before_commit(template_trial):
            return super().create_new_trial(study_id, bare)

    @contextlib.contextmanager
    def _before_commit(self, template: FrozenTrial) -> Iterator[None]:
        """Meanwhile a transaction that makes a trial does not end before it has all that `template` has."""

        def write(session: Session) -> None:
            [trial_id] = [row.trial_id for row in session if isinstance(row, TrialModel)]
            for to, rows in _rows(template, trial_id):
                if rows:
                    session.execute(sqlalchemy.insert(to), rows)

        sqlalchemy.event.listen(self.scoped_session, "before_commit", write)
        try:
            yield
        finally:
            sqlalchemy.event.remove(self.scoped_session, "before_commit", write)


def use_pragmas(storage: RDBStorage, *pragmas: str) -> None:
    """From now on, begin every connection to an SQLite database with these."""

    def begin(connection: Any, _: Any) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    sqlalchemy.event.listen(storage.engine, "connect", begin)
    storage.engine.dispose()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put signals that ask for the end off until the database is left.

    In the middle of a statement they leave a connection in disorder.
    """
    if threading.current_thread() is not threading.main_thread():  # no other thread gets it
        yield
        return
    arrived: list[tuple[int, types.FrameType | None]] = []
    previous = {number: signal.getsignal(number) for number in ASKING}
    for number, handler in previous.items():
        if callable(handler):
            signal.signal(number, lambda *signalled: arrived.append(signalled))
    try:
        yield
    finally:
        for number, handler in previous.items():
            if callable(handler):
                signal.signal(number, handler)
    if arrived and callable(handler := previous[signal.Signals(arrived[0][0])]):
        handler(*arrived[0])


def _rows(template: FrozenTrial, trial_id: Any) -> Iterator[tuple[sqlalchemy.TableClause, list[dict[str, Any]]]]:
    distributions: dict[str, BaseDistribution] = template.distributions
    yield (
        _PARAMS,
        [
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": distributions[name].to_internal_repr(value),
                "distribution_json": _json_of(distributions[name]),
            }
            for name, value in template.params.items()
        ],
    )
    for name, attributes in (("user", template.user_attrs), ("system", template.system_attrs)):
        rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(v)} for key, v in attributes.items()]
        yield _ATTRIBUTES[name], rows
