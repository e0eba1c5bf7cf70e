"""A run in Python, and what displays a search: tested on a run of an earlier version, and on separate parts."""

import inspect
import io
import json
import math
import re
import shutil
from pathlib import Path

import plotly.graph_objects
import pytest
from rich.console import Console

import mnas
from mnas.api.watching import BarWatcher, ReportingWatcher, bar_watcher, shown_by
from mnas.search.progress import Progress
from mnas.study import front_of, read_run
from mnas.study.results import references_of
from tests.old_files.old import old_run


@pytest.fixture
def run(tmp_path: Path) -> mnas.Run:
    return mnas.open_run(old_run(tmp_path / "runs/digits"))


def test_a_run_offers_its_front_its_best_and_its_trials(run: mnas.Run) -> None:
    snapshot = read_run(run.path)
    assert list(run.trials) == snapshot.trials
    assert run.status == snapshot.state.status == "finished"
    assert list(run.front) == front_of([*run.trials, *references_of(snapshot)])
    latencies = [t.latency_ms for t in run.front]
    assert latencies == sorted(latencies)
    assert run.best in run.front
    assert run.name_of(1) == run.name_of("1") == run.name_of(run.trials[1])
    with pytest.raises(ValueError, match="has trials 0 to 1"):
        run.name_of(7)
    assert run.name_of(run.trials[1]) == f"{run.path}#1"
    assert mnas.Run(run.name_of(run.best).rpartition("#")[0]).best == run.best


def test_trials_are_plain_values_on_request(run: mnas.Run) -> None:
    rows = run.trials.to_dicts()
    assert json.loads(json.dumps(rows)) == rows
    assert [row["number"] for row in rows] == [0, 1]
    assert [row["latency_ms"] for row in rows] == [t.latency_ms for t in run.trials]


def test_a_run_shows_itself(run: mnas.Run) -> None:
    figure = run.plot()
    assert isinstance(figure, plotly.graph_objects.Figure)
    assert len(figure.data) >= 1
    assert run.report() == run.path / "report.html"
    assert run.report().read_text().startswith("<!")
    assert repr(run) == f"Run({str(run.path)!r}): finished, 2 trials, {len(run.front)} on the front"
    assert repr(run.trials).count("\n") == 1
    assert repr(run.best) == (
        f"TrialRecord({run.best.title}: complete, accuracy {run.best.accuracy:.4f}, {run.best.latency_ms:.3f} ms, "
        f"{run.best.params / 1e6:.2f}M params, {run.best.macs / 1e6:.1f}M MACs)"
    )
    html = run._repr_html_()
    assert html.count("<tr>") == 1 + len(run.front)
    assert f"{run.best.accuracy:.4f}" in html


def test_what_is_no_run_is_refused(run: mnas.Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing-here"):
        mnas.open_run(tmp_path / "nothing-here")
    shutil.rmtree(run.path)
    with pytest.raises(ValueError, match="digits"):
        run.trials  # noqa: B018


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "digits", "trial": 3}, "unknown option 'trial'; did you mean trials?"),
        ({}, "data is required"),
        ({"data": "digits", "trials": "ten"}, "trials must be an integer, but got 'ten'"),
        ({"data": "digits", "trials": 0}, "trials must be 1 or more, but got 0"),
        ({"data": "digits", "preset": "papers"}, "preset must be one of standard, paper, but got 'papers'"),
        ({"data": "digits", "watcher": "tqdm"}, "watcher must be a Watcher, auto, bar or none, but got 'tqdm'"),
    ],
)
def test_options_that_cannot_be_are_refused_before_any_work(
    options: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r".") as error:
        mnas.search(**options)
    assert str(error.value) == message
    assert not list(tmp_path.iterdir())


def test_a_bar_in_a_terminal_and_silence_in_code(capsys: pytest.CaptureFixture[str]) -> None:
    step = Progress(
        finished=3, total=10, failed=1, pruned=0, best_reward=0.5, front_size=2, eta_s=math.nan, activity="training 4"
    )
    with shown_by("auto") as watcher:
        assert type(watcher) is ReportingWatcher
        watcher.say("a line")
        watcher.progress(step)
    assert capsys.readouterr().out == ""
    text = io.StringIO()
    with bar_watcher(Console(file=text, force_terminal=True, width=120)) as watcher:
        assert isinstance(watcher, BarWatcher)
        watcher.say("[bold]a line")
        watcher.progress(step)
    assert "[bold]a line" in text.getvalue()
    assert "3/10" in text.getvalue()
    assert "best reward 0.5000  front 2  1 failed  ETA -  training 4" in text.getvalue()


def test_a_watcher_of_ones_own_is_used_as_it_is() -> None:
    own = ReportingWatcher()
    with shown_by(own) as watcher:
        assert watcher is own
    assert inspect.isabstract(mnas.Watcher)


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    class Impatient(ReportingWatcher):
        def say(self, text: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"stopped; nothing is lost, and the same call resumes runs.one"):
        mnas.search("digits", run="runs/one", watcher=Impatient())


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"target_latency_ms": [3, 3]}, " must give each target once, but got 3,3"),
        ({"target_latency_ms": -1}, "-1"),
        ({"start_from": ["auto", "none"]}, "names separated by commas, but got 'auto,none'"),
        ({"parent": ["nosuchnet", "mnasnet-a1"], "input_size": [16, 24]}, " nosuchnet: 'nosuchnet' is not a"),
        ({"device": ["host", "host"]}, "device must be different names separated by commas, but got 'host,host'"),
    ],
)
def test_a_search_takes_numbers_and_lists(tmp_path, options, fault):
    with pytest.raises(ValueError, match=re.escape(fault)):
        mnas.search(data="digits", run=tmp_path / "run", **options)
