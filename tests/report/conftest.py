from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import store, synthetic_snapshot

from mnas.study import Snapshot, State


@pytest.fixture
def make_snapshot(tmp_path: Path) -> Callable[..., Snapshot]:
    """Function (states of the trials, options of synthetic_snapshot) -> such a run in memory, with a folder."""

    def make(states: list[State], *, name: str = "synthetic", **options: Any) -> Snapshot:
        (tmp_path / name).mkdir(exist_ok=True)
        return synthetic_snapshot(tmp_path / name, states, **options)

    return make


@pytest.fixture
def make_run(make_snapshot: Callable[..., Snapshot]) -> Callable[..., Path]:
    """The same run on disk, by its folder."""

    def make(states: list[State], **options: Any) -> Path:
        snapshot = make_snapshot(states, **options)
        store(snapshot)
        return snapshot.path

    return make
