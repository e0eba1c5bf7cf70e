"""Answers that parse but are impossible; test_ssh.py has real processes that give such answers."""

import contextlib
import json

import pytest

from mnas.latency.devices.scripted import Channel, ScriptUnit
from mnas.latency.latency import MeasurementError, Setup, UnitError

OPENED = {"ok": {"core": 1, "realtime": False, "runs": [5, 5]}}
MS = 20 * [1e-4]  # shorter in total than any round here, and enough of them


class Canned(Channel):
    """A channel with given answers to `round` and `open`, and the script's answers to other requests."""

    def __init__(self, answer, open_answer=OPENED):
        self.answers = {"open": open_answer, "round": answer, "close": {"ok": None}, "hello": answer, "memory": answer}
        self.closed = False

    def put(self, name, content):
        return name

    def remove(self, path):
        pass

    def ask(self, line, timeout_s):
        answer = self.answers[json.loads(line)["do"]]
        return answer if isinstance(answer, str) else json.dumps(answer)

    def exclusive(self):
        return contextlib.nullcontext()

    def close(self):
        self.closed = True


def one_round(channel):
    with ScriptUnit("x", lambda: channel).session((b"a", b"b"), Setup()) as session:
        return session.round(False)


def times(wall, kept):
    return {"ok": {"wall_ms": wall, "kept_ms": kept}}


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        ("", "unexpected answer ''"),
        ("[1, 2]", "unexpected answer"),
        ("{}", "unexpected answer"),
        ('{"ok": 1, "more": 2}', "unexpected answer"),
        (times([[1.0]], [[1.0]]), "positive and finite"),
        (times([[1.0], []], [[1.0], []]), "positive and finite"),
        (times([["1"], ["1"]], [["1"], ["1"]]), "positive and finite"),
        (times([[1.0], [1.0]], [[float("inf")], [1.0]]), "unexpected answer"),
        ({"ok": {"wall_ms": [[1.0], [1.0]]}}, "positive and finite"),
        ({"ok": None}, "positive and finite"),
        (times([[9e9], [1.0]], [[1.0], [1.0]]), r"the device reports 9e\+09 ms of inferences"),
        (times([MS, MS], [MS, MS]), "20 inferences in 0.002 ms, which is too short for a turn"),
        ({"error": "too hot", "of": "unit"}, "^x: too hot$"),
        ({"error": "too\n\x1b[31mhot\0" + 999 * "!", "of": "unit"}, r"^x: too \?\[31mhot\?!{484}$"),
    ],
)
def test_an_impossible_round_is_the_devices_failure_and_ends_the_connection(answer, match):
    channel = Canned(answer)
    with pytest.raises(UnitError, match=match):
        one_round(channel)
    assert channel.closed


def test_clocks_of_one_machine_agree():
    many = 300 * [1e-5]
    wall, kept = one_round(Canned(times([many, many], [many[1:], many[1:]])))
    assert (len(wall.wall_ms), len(kept.kept_ms)) == (300, 299)
    for factor in (1e-3, 1e3):
        with pytest.raises(UnitError, match="the device's clocks disagree"):
            one_round(Canned(times([many, many], [many, [factor * t for t in many]])))


def test_failures_of_models_and_of_devices_are_distinguished():
    with pytest.raises(MeasurementError, match=r"^no such operator$"):
        one_round(Canned({"error": "no such operator", "of": "model"}))
    with pytest.raises(ValueError, match=r"^x: pip install it$"):
        one_round(Canned({"error": "pip install it", "of": "setup"}))
    for wrong in ({"ok": None}, {"ok": {"core": 1}}):
        with pytest.raises(UnitError, match="unexpected answer"):
            one_round(Canned(times([], []), open_answer=wrong))


def test_other_answers_must_have_the_expected_type():
    for answer in ({"ok": "fast"}, {"ok": {"cores": [1]}}):
        with pytest.raises(UnitError, match="the device must identify itself"):
            ScriptUnit("x", lambda answer=answer: Canned(answer)).fingerprint(Setup())
    for answer in ({"ok": -1}, {"ok": "1"}):
        with pytest.raises(UnitError, match="peak memory must be a number of bytes"):
            ScriptUnit("x", lambda answer=answer: Canned(answer)).peak_memory_bytes(b"", Setup())
