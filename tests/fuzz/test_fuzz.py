"""The short form of `make fuzz`, with the same cases every time, and tests of the engine."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine import Target, fuzz, input_of
from mutations import mutated, mutated_json, mutated_text

ROOT = Path(__file__).parents[2]


@pytest.mark.fuzz
@pytest.mark.timeout(600)
def test_damaged_inputs_end_in_lines_of_the_programs_own(tmp_path):
    command = [sys.executable, "-m", "tests.fuzz", "--cases", "20", "--seed", "14", "--keep", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    findings = re.findall("^FINDING .*", done.stdout, re.MULTILINE)
    assert findings == [], done.stdout
    assert done.returncode == 0, done.stderr
    found = re.search(r"^(\d+) cases, 0 findings$", done.stdout, re.MULTILINE)
    assert found is not None
    assert int(found[1]) >= 400


def _die(content: bytes, work: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang(content: bytes, work: Path) -> None:
    while True:
        pass


def _fail(content: bytes, work: Path) -> None:
    raise KeyError("key")


def _refuse(content: bytes, work: Path) -> None:
    raise ValueError("a\nb")


def outcome_of(call, folder, cases=3, mutate=mutated):
    target = Target(corpus=lambda: [b"abcdef", b"123"], call=call, mutate=mutate)
    return fuzz("it", target, seed=1, first=0, cases=cases, until=time.monotonic() + 1000, folder=folder)


def test_the_engine_finds_signals_and_unexpected_errors_and_goes_on(tmp_path):
    died = outcome_of(_die, tmp_path)
    assert [finding.what for finding in died.findings] == ["signal 11"] * 3
    assert [finding.number for finding in died.findings] == [0, 1, 2]
    assert (tmp_path / "it-1-0").read_bytes() == b"abcdef"
    failed = outcome_of(_fail, tmp_path)
    assert len(failed.findings) == 3
    assert failed.findings[0].what.startswith("KeyError: 'key'")
    refused = outcome_of(_refuse, tmp_path)
    assert (refused.cases, dict(refused.kinds), refused.findings) == (3, {"ValueError": 3}, [])


def test_the_engine_ends_a_hang(tmp_path, monkeypatch):
    import engine

    monkeypatch.setattr(engine, "CPU_S", 0.3)
    hung = outcome_of(_hang, tmp_path, cases=1)
    assert [finding.what for finding in hung.findings] == ["hang"]


def test_a_case_follows_from_its_seed_and_number():
    target = Target(corpus=lambda: [b'{"a": [1, 2]}', b"[]"], call=_refuse, mutate=mutated_json)
    inputs = [input_of(target, "it", 3, number) for number in range(50)]
    assert inputs == [input_of(target, "it", 3, number) for number in range(50)]
    assert inputs[:2] == [b'{"a": [1, 2]}', b"[]"]
    assert len(set(inputs)) > 30
    assert inputs != [input_of(target, "it", 4, number) for number in range(50)]


def test_texts_are_mutated_to_texts():
    import random

    texts = {mutated_text("cat", random.Random(number), ["dog"]) for number in range(100)}
    assert len(texts) > 50
    assert any("\x1b" in text for text in texts)
