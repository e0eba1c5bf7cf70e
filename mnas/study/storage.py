"""Optuna's database storage with fewer statements for a new trial, and protection of its database against signals.

`BulkStorage` relies on tables and a session that Optuna does not publish. tests/study/test_storage.py compares every
row with what Optuna itself writes, so that a new version of Optuna cannot change them unnoticed.
"""

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
    kind: table(f"trial_{kind}_attributes", *map(column, ("trial_id", "key", "value_json")))
    for kind in ("user", "system")
}
_json_of = functools.lru_cache(maxsize=1000)(distribution_to_json)  # all trials of a study have the same distributions


class BulkStorage(RDBStorage):
    """Optuna's storage, except that a new trial comes with one insert a table, in the transaction that creates it.

    Optuna's storage asks the database three times for every parameter: with the 42 of MnasNet's space, most of what a
    search costs. The rows are the same. Only one check is left out: that earlier trials gave a parameter a compatible
    distribution.
    """

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Store a trial like `template_trial`, all or nothing; return its id in the database."""
        if template_trial is None:
            return super().create_new_trial(study_id)
        bare = copy.copy(template_trial)
        bare.params, bare.distributions, bare.user_attrs, bare.system_attrs = {}, {}, {}, {}
        with self._inserting_before_commit(template_trial):
            return super().create_new_trial(study_id, bare)

    @contextlib.contextmanager
    def _inserting_before_commit(self, template: FrozenTrial) -> Iterator[None]:
        """Insert the template's parameters and attributes just before Optuna commits the trial that it creates."""

        def insert(session: Session) -> None:
            [trial_id] = [row.trial_id for row in session if isinstance(row, TrialModel)]
            for into, rows in _rows(template, trial_id):
                if rows:
                    session.execute(sqlalchemy.insert(into), rows)

        sqlalchemy.event.listen(self.scoped_session, "before_commit", insert)
        try:
            yield
        finally:
            sqlalchemy.event.remove(self.scoped_session, "before_commit", insert)


def _rows(template: FrozenTrial, trial_id: Any) -> Iterator[tuple[sqlalchemy.TableClause, list[dict[str, Any]]]]:
    """Yield each table with the rows that a trial like `template` has in it, encoded as Optuna encodes them."""
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
    for kind, attributes in (("user", template.user_attrs), ("system", template.system_attrs)):
        yield (
            _ATTRIBUTES[kind],
            [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()],
        )


def use_pragmas(storage: RDBStorage, *pragmas: str) -> None:
    """Execute these pragmas at the start of every connection to an SQLite database, such as `journal_mode=WAL`."""

    def execute(connection: Any, _: Any) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    sqlalchemy.event.listen(storage.engine, "connect", execute)
    storage.engine.dispose()  # existing connections would not have the pragmas


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay the signals that ask the process to end until the context is left.

    Their exception in the middle of a statement would leave the connection in an undefined state. Only the first signal
    is handled, as all ask for the same.
    """
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread alone
        yield
        return
    handlers = {number: handler for number in ASKING if callable(handler := signal.getsignal(number))}
    arrived: list[tuple[int, types.FrameType | None]] = []
    for number in handlers:
        signal.signal(number, lambda *arguments: arrived.append(arguments))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if arrived:
        number, frame = arrived[0]
        handlers[signal.Signals(number)](number, frame)
