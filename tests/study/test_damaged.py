"""A study with a damaged row: one line names it, the exit code is 2, and the run is unchanged."""

import os
import random
import re
import shutil
import sqlite3
from contextlib import closing

import pytest
from damage import damage
from test_search import Listener
from toy import toy_config, toy_plan, toy_problem, toy_run

from mnas.cli.main import run as mnas
from mnas.search.loop import search
from mnas.study import RunError, open_run, read_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of eight trials."""
    path = tmp_path_factory.mktemp("whole") / "run"
    toy_run(path)
    return path


@pytest.fixture
def copy(tmp_path, whole):
    """A copy of the run, which a test may damage."""
    return shutil.copytree(whole, tmp_path / "runs" / "copy")


def execute(path, *statements):
    with closing(sqlite3.connect(path / "study.db")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


ID = "(SELECT trial_id FROM trials WHERE number = 2)"


def edited(attribute: str, field: str, value: str) -> str:
    """Change one field of one attribute of trial 2; the JSON stays valid."""
    changed = f"json_set(value_json, '$.{field}', {value})"
    return f"UPDATE trial_user_attributes SET value_json = {changed} WHERE trial_id = {ID} AND key = '{attribute}'"


DAMAGE = {
    "DELETE FROM trials WHERE number = 2": r"trial 2 is missing",
    "DELETE FROM trials WHERE number = 7": r"trial 7 is missing",
    f"DELETE FROM trial_values WHERE trial_id = {ID} AND objective = 0": r"trial 2 cannot be read ",
    f"DELETE FROM trial_values WHERE trial_id = {ID} AND objective = 1": r"trial 2: its values must be an accuracy and",
    f"DELETE FROM trial_values WHERE trial_id = {ID}": r"trial 2: its values must be an accuracy and a latency",
    f"UPDATE trial_values SET value = 7 WHERE trial_id = {ID} AND objective = 0": r"trial 2: its accuracy: must be fr",
    f"UPDATE trial_values SET value = 0.25 WHERE trial_id = {ID} AND objective = 0": r"trial 2: its values .*0\.25, .*",
    f"DELETE FROM trial_params WHERE trial_id = {ID} AND param_name = 'block1.op'": r"trial 2: its parameters must be",
    f"UPDATE trial_params SET param_value = 9 WHERE trial_id = {ID}": r"trial 2 cannot be read",
    f"DELETE FROM trial_user_attributes WHERE trial_id = {ID} AND key = 'latency'": r"trial 2: its attribute 'latency'",
    f"DELETE FROM trial_user_attributes WHERE trial_id = {ID} AND key = 'arch'": r"trial 2: its attribute 'arch' is mi",
    f"UPDATE trial_user_attributes SET value_json = '[' WHERE trial_id = {ID} AND key = 'arch'": "trial 2 cannot be re",
    f"UPDATE trial_user_attributes SET value_json = '[]' WHERE trial_id = {ID} AND key = 'arch'": "trial 2: its attrib",
    f"UPDATE trials SET state = 'WON' WHERE trial_id = {ID}": r"trial 2 cannot be read",
    f"UPDATE trials SET state = 'WAITING' WHERE trial_id = {ID}": r"trial 2: its state must be RUNNING, COMPLETE",
    f"UPDATE trials SET number = 3 WHERE trial_id = {ID}": r"trial 2 is missing \(its row has number 3\)",
    "DELETE FROM study_user_attributes WHERE key = 'config'": r"the run's attribute 'config' is missing",
    "UPDATE study_user_attributes SET value_json = '[1,' WHERE key = 'config'": r"an attribute of the run cannot be re",
    "DELETE FROM study_directions WHERE objective = 1": r"its directions must be MAXIMIZE and MINIMIZE, but are MAXIM",
    "DELETE FROM studies": r"is damaged, or another version of mnas wrote it",
    f"UPDATE trial_values SET value = 2.0 WHERE trial_id = {ID} AND objective = 0": r"trial 2: its accuracy: must be",
    f"UPDATE trial_values SET value = -5 WHERE trial_id = {ID} AND objective = 1": r"trial 2: its latency: must be",
    edited("latency", "latency_ms", "-5"): r"trial 2: its attribute 'latency': .*must be positive",
    edited("evaluation", "accuracy", "2.0"): r"trial 2: its attribute 'evaluation': accuracies must be from 0 to 1",
    edited("evaluation", "val_images", "'many'"): r"trial 2: its attribute 'evaluation': val_images must be an integer",
    edited("arch", "head_filters", "1280"): r"trial 2: its attribute 'fingerprint' must be that of its architecture",
    f"UPDATE trial_user_attributes SET value_json = '\"9\"' WHERE trial_id = {ID} AND key = 'params'": "its at",
    f"UPDATE trial_user_attributes SET value_json = '99' WHERE trial_id = {ID} AND key = 'version'": "trial 2: its at",
    "UPDATE study_user_attributes SET value_json = json_set(value_json, '$[0].fingerprint', 'ab') WHERE key = "
    "'references'": r"attribute 'references': its attribute 'fingerprint' must be that of its architecture",
    "UPDATE study_user_attributes SET value_json = '[{}]' WHERE key = 'references'": r"attribute 'references': must ha",
}


@pytest.mark.parametrize("statement", DAMAGE)
def test_a_damaged_row_is_one_line_that_names_it(copy, statement, capsys):
    state = sqlite3.connect(copy / "study.db").execute(f"SELECT state FROM trials WHERE trial_id = {ID}").fetchone()
    assert state == ("COMPLETE",)
    execute(copy, statement)
    with pytest.raises(RunError, match=DAMAGE[statement]) as caught:
        read_run(copy)
    assert "\n" not in str(caught.value)
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and not p.name.startswith("study.db")}
    with pytest.raises(RunError, match=DAMAGE[statement]), open_run(copy, toy_config()):
        pass
    commands = (["show", f"{copy}#2"], ["report", str(copy)], ["train", str(copy), "--top", "1"],
                ["export", f"{copy}#2", "--to", "litert"])  # fmt: skip
    assert mnas(commands[list(DAMAGE).index(statement) % 4]) == 2  # all read a run alike
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "study.db" in error
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("name", ["study.db", "study.db-wal", "study.db-journal"])
def test_a_pipe_instead_of_the_database_does_not_block(copy, name, capsys):
    (copy / name).unlink(missing_ok=True)
    os.mkfifo(copy / name)
    assert mnas(["report", str(copy)]) == 2
    assert name.removesuffix("-wal").removesuffix("-journal") in capsys.readouterr().err
    with pytest.raises(RunError, match=f"{name} must be a regular file"), open_run(copy, toy_config()):
        pass


def test_runs_lists_the_others(copy, whole, capsys):
    shutil.copytree(whole, copy.parent / "whole")
    execute(copy, "DELETE FROM trials WHERE number = 2")
    assert mnas(["runs", str(copy.parent)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^unreadable: .*copy/study\.db is damaged: trial 2 is missing .*; restore it", out, re.MULTILINE)
    assert "finished" in out


def use(path, capsys):
    """Check that every command on a run works, or ends with one line and exit code 2."""
    for command in (["show", f"{path}#1"], ["report", str(path)], ["export", f"{path}#1", "--to", "litert"],
                    ["runs", str(path.parent)]):  # fmt: skip
        code = mnas(command)
        error = capsys.readouterr().err
        assert code in (0, 2), error
        assert error.count("\n") <= 1
        assert "a bug in mnas" not in error
    error = go_on(path)
    assert error is None or "\n" not in error


def go_on(path):
    """Resume the search with more trials; return the line that rejects it, or None."""
    try:
        with open_run(path, toy_config()) as run:
            search(run, toy_problem(), toy_plan(trials=9), Listener())
    except RunError as error:
        return str(error)
    return None


QUICK = (*range(6), 87, 150)  # 87 duplicates an attribute of the run, 150 a trial
SEEDS = [s if s in QUICK else pytest.param(s, marks=pytest.mark.slow) for s in range(300)]


@pytest.mark.parametrize("seed", SEEDS)
def test_any_damage_is_one_line(copy, seed, capsys):
    done = damage(copy / "study.db", random.Random(seed))
    print(done)
    use(copy, capsys)
