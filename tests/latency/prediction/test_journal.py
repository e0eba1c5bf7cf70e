"""The journal returns a fit's samples unchanged, or rejects the file."""

import json

import pytest

from mnas.latency.prediction.journal import Journal
from mnas.latency.prediction.predictor import Sample

SAMPLES = [Sample((0, number), 1.5 + number, 0.01) for number in range(5)]


def journal(path) -> Journal:
    return Journal(path, {"device": "host", "seed": 3})


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "fit.unfinished"
    first = journal(file)
    first.begin([])
    for sample in SAMPLES:
        first.add(sample)
    return file


def test_samples_come_back(path):
    assert list(journal(path).samples.values()) == SAMPLES


def test_half_a_line_is_measured_again(path):
    path.write_bytes(path.read_bytes()[:-9])
    assert list(journal(path).samples.values()) == SAMPLES[:-1]


def test_a_changed_number_is_refused(path):
    path.write_text(path.read_text().replace("3.5", "3.6"))
    with pytest.raises(
        ValueError, match="must be the journal of an unfinished fit, but it is damaged; remove it to start again"
    ):
        journal(path)


def test_lines_of_an_earlier_version_are_read(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "check"}) + "\n" for row in rows))
    assert list(journal(path).samples.values()) == SAMPLES
