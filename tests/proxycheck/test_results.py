"""Stored trainings: they persist, and other files are rejected."""

import json

import pytest

from mnas.proxycheck.results import open_results
from mnas.study import RunError

CONFIG = {"data_content": "abc", "seed": 0, "proxy": {"batch_size": 64}}


def test_stored_trainings_are_read_back(tmp_path):
    with open_results(tmp_path / "check", CONFIG) as results:
        results.keep("a", {"accuracy": 0.5})
    with open_results(tmp_path / "check", CONFIG) as results:
        assert results.trainings == {"a": {"accuracy": 0.5}}
        results.keep("b", {"error": "diverged"})
    with open_results(tmp_path / "check", CONFIG) as results:
        assert list(results.trainings) == ["a", "b"]


def test_another_configuration_is_rejected_with_the_fields_that_differ(tmp_path):
    with open_results(tmp_path / "check", CONFIG) as results:
        results.keep("a", {"accuracy": 0.5})
    other = {**CONFIG, "proxy": {"batch_size": 32}}
    with (
        pytest.raises(
            RunError, match=r"\(proxy\.batch_size: 64 before, 32 now\); use the same options, or choose another --out"
        ),
        open_results(tmp_path / "check", other),
    ):
        pass
    with open_results(tmp_path / "check", CONFIG) as results:
        assert list(results.trainings) == ["a"]


def test_a_second_process_is_rejected(tmp_path):
    with (
        open_results(tmp_path / "check", CONFIG),
        pytest.raises(RunError, match="in use by another process"),
        open_results(tmp_path / "check", CONFIG),
    ):
        pass


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other", "config": {}, "trainings": {}}'])
def test_a_damaged_file_is_rejected_and_kept(tmp_path, text):
    file = tmp_path / "trainings.json"
    file.write_text(text)
    with (
        pytest.raises(RunError, match="is damaged, or another version of mnas wrote it"),
        open_results(tmp_path, CONFIG),
    ):
        pass
    assert file.read_text() == text


def test_other_folders_and_files_are_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(RunError, match="is not a proxy check"), open_results(tmp_path, CONFIG):
        pass
    with pytest.raises(RunError, match="is a file"), open_results(tmp_path / "holiday.jpg", CONFIG):
        pass


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    """A temporary file of a killed process does not cause an error."""
    folder = tmp_path / "check"
    folder.mkdir()
    (folder / ".trainings.json.x.tmp").write_text("{")
    with open_results(folder, CONFIG) as results:
        results.keep("a", {"accuracy": 0.5})
    assert json.loads((folder / "trainings.json").read_text())["trainings"] == {"a": {"accuracy": 0.5}}
