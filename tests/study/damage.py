"""Damage to a study's database, one row at a time, as left by partial copies, repair tools and manual edits."""

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path

TABLES = (
    *("studies", "study_directions", "study_user_attributes", "study_system_attributes", "version_info"),
    *("trials", "trial_params", "trial_values", "trial_user_attributes", "trial_system_attributes"),
)
VALUES = (None, "", "x", -1, 0, 3.7, 1e308, "NaN", b"\xff\x00", "[", "{}", "[]", "null", '"x"', "1e999", "[" * 2000)
"""Values of a damaged column: text that is JSON, and text that is not."""


def damage(file: Path, rng: random.Random) -> str:
    """Damage one row, or all rows of one table, of the study.db `file`; return what was done."""
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA foreign_keys=OFF")
        database.execute("PRAGMA ignore_check_constraints=ON")
        table = rng.choice(TABLES)
        rows = database.execute(f"SELECT rowid FROM {table}").fetchall()
        if not rows:
            return f"{table} is empty"
        (row,) = rng.choice(rows)
        columns = [column[1] for column in database.execute(f"PRAGMA table_info({table})")]
        kind = rng.choice(("delete", "delete", "empty", "double", "corrupt", "corrupt", "corrupt", "json"))
        try:
            done = _KINDS[kind](database, table, row, columns, rng)
            database.commit()
        except sqlite3.Error as error:
            database.rollback()
            return f"{kind} {table}: the database refuses it ({error})"
    return f"{kind} {table} row {row} {done}"


def _delete(database, table, row, columns, rng):
    database.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))
    return ""


def _empty(database, table, row, columns, rng):
    database.execute(f"DELETE FROM {table}")
    return ""


def _double(database, table, row, columns, rng):
    """Rebuild a table without its primary key and its unique constraints, which copies by other tools may lose."""
    (made,) = database.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    loose = "\n".join(line for line in made.splitlines() if "UNIQUE" not in line and "PRIMARY KEY" not in line).rstrip()
    loose = loose.removesuffix(")").rstrip().removesuffix(",") + ")"
    database.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    database.execute(loose)
    database.execute(f"INSERT INTO {table} SELECT * FROM old_{table}")
    database.execute(f"DROP TABLE old_{table}")
    database.execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = ?", (row,))
    return ""


def _corrupt(database, table, row, columns, rng):
    column, value = rng.choice(columns), rng.choice(VALUES)
    database.execute("PRAGMA writable_schema=ON")
    database.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name = ?", (table,))
    database.execute("PRAGMA writable_schema=RESET")
    database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))
    return f"{column} = {value!r:.40}"


def _json(database, table, row, columns, rng):
    """Return valid JSON in which one value is changed or missing."""
    column = next((c for c in columns if c in ("value_json", "distribution_json")), None)
    if column is None:
        return _corrupt(database, table, row, columns, rng)
    (text,) = database.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (row,)).fetchone()
    value = [json.loads(text)]
    place, key = value, 0
    while isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
        place = place[key]
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
    if place is not value and rng.random() < 0.4:
        del place[key]
        done = f"without {key}"
    else:
        place[key] = rng.choice((None, "x", -1, 0.5, 10**30, [], {}, True, [None], {"x": []}, "\n\x1b[31m"))
        done = f"{key} = {place[key]!r}"
    database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (json.dumps(value[0]), row))
    return done


_KINDS = {"delete": _delete, "empty": _empty, "double": _double, "corrupt": _corrupt, "json": _json}
