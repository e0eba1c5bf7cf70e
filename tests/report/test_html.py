import json
import re
from html.parser import HTMLParser

import pytest

from mnas.report.diagram import block_label
from mnas.report.facts import facts_of
from mnas.report.html import report_html, write_report
from mnas.report.page import _embedded_json
from mnas.report.sections import DRAWINGS, drawings
from mnas.study import read_run

DONE, FAILED, SKIPPED, RUNNING = "complete", "failed", "skipped", "running"
ATTACK = "</script></title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!--"


class Page(HTMLParser):
    """The content that a browser would see: elements, attributes, text outside scripts, and embedded data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data: str) -> None:
        (self.scripts if self.tags and self.tags[-1] == "script" and len(data) > 500 else self.text).append(data)


STATES = {
    "no trials, nothing set up": ([], {"set_up": False}, "No candidate has been trained yet"),
    "no trials": ([], {}, "No candidate has been trained yet"),
    "running only": ([RUNNING] * 4, {}, "4 running"),
    "failed only": ([FAILED] * 12, {}, "diverged: loss is nan"),
    "skipped only": ([SKIPPED] * 12, {}, "latency over --latency-limit"),
    "one": ([DONE], {}, "Take trial 0"),
    "no diagnostics": ([DONE] * 12, {"controller": "random"}, "Take trial"),
    "surrogate": ([DONE] * 12, {"controller": "surrogate"}, "What matters for latency"),
    "finished": ([DONE] * 10, {"status": "finished"}, "finished: all trials are done"),
}


@pytest.mark.parametrize("case", STATES)
def test_a_report_can_be_written_at_any_time(make_snapshot, case):
    states, options, expected = STATES[case]
    page = Page(report_html(make_snapshot(states, **options)))
    assert expected in " ".join(page.text)


def test_it_says_the_front_and_the_best_of_the_study(make_snapshot):
    snapshot = make_snapshot([DONE] * 30 + [SKIPPED, FAILED])
    facts = facts_of(snapshot)
    text = report_html(snapshot)
    table = re.search(r'<table class="numbers" id="front">.*?</table>', text, re.DOTALL)[0]
    rows = re.findall(r"<tr class=\"(best)?\"><td>(\d+)</td><td>([\d.]+)%.*?<td>([\d.]+) ms", table)
    assert [int(number) for _, number, _, _ in rows] == [c.number for c in facts.front]
    assert [number for best, number, _, _ in rows if best] == [str(facts.best.number)]
    for (_, _, accuracy, latency), candidate in zip(rows, facts.front, strict=True):
        assert float(accuracy) == pytest.approx(100 * candidate.accuracy, abs=0.005)
        assert float(latency) == pytest.approx(candidate.latency_ms, rel=5e-4)
    assert "30" in text
    assert "1 skipped, 1 failed" in text
    assert len(facts.front) > 2
    for block in facts.best.arch.blocks:
        assert block_label(block) in text


def test_nothing_that_users_name_becomes_markup(make_snapshot):
    name = "run <b onmouseover=alert(3)>&amp;"
    snapshot = make_snapshot([DONE] * 4 + [FAILED] * 3, error=ATTACK, class_names=(ATTACK, "dog"), name=name)
    page = Page(report_html(snapshot))
    harmless = Page(report_html(make_snapshot([DONE] * 4 + [FAILED] * 3)))
    assert page.tags == harmless.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert ATTACK in "".join(page.text)  # shown literally
    assert name in "".join(page.text)


def test_a_reference_cannot_end_the_embedded_json():
    values = {"a": [ATTACK, float("nan"), 1.5], "b": {"c": float("-inf")}}
    text = _embedded_json(values)
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": [ATTACK, None, 1.5], "b": {"c": None}}


def test_equal_studies_give_equal_bytes_and_the_file_is_whole(make_run):
    run = make_run([DONE] * 6)
    first = write_report(run)
    content = first.read_bytes()
    assert write_report(run).read_bytes() == content
    assert content.endswith(b"</html>\n")
    assert sorted(p.name for p in run.iterdir() if p.name.startswith(".")) == []
    assert report_html(read_run(run)).encode() == content


def test_nothing_is_fetched(make_snapshot):
    page = Page(report_html(make_snapshot([DONE] * 6)))
    assert not [value for name, value in page.attributes if name in ("src", "href")]
    policy = next(v for n, v in page.attributes if n == "content" and "default-src" in v)
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline' script" not in policy


def test_a_long_front_is_drawn_in_part_with_its_ends_and_the_best(make_snapshot):
    facts = facts_of(make_snapshot([DONE] * 90))
    assert len(facts.front) > DRAWINGS
    numbers = [int(n) for n in re.findall(r"<b>trial (\d+)</b>", drawings(facts))]
    assert len(numbers) == DRAWINGS
    on_front = [c.number for c in facts.front]
    assert [n for n in on_front if n in numbers] == numbers
    assert {on_front[0], on_front[-1], facts.best.number} <= set(numbers)
    assert f"{DRAWINGS} of {len(on_front)} models are drawn" in drawings(facts)


def test_a_folder_without_a_study_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=r"no study\.db") as caught:
            write_report(folder)
        assert "\n" not in str(caught.value)
        assert not (folder / "study.db").exists()
        assert not (folder / "report.html").exists()


def test_full_training_stands_beside_the_proxy(make_snapshot):
    snapshot = make_snapshot([DONE] * 10)
    assert "Full training" not in report_html(snapshot)
    accuracies = {2: 0.97, 5: 0.9, 7: 0.93}
    for number, accuracy in accuracies.items():
        path = snapshot.path / "trained" / str(number) / "result.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"accuracy": accuracy, "test_accuracy": 0.5 if number == 5 else None}))
    text = report_html(snapshot)
    table = re.search(r'<table class="numbers" id="trained">.*?</table>', text, re.DOTALL)[0]
    rows = re.findall(r"<td>(\d+)</td><td>([\d.]+)%</td><td>([\d.]+)%</td><td>(–|[\d.]+%)</td>", table)
    proxy = {n: snapshot.trials[n].accuracy for n in accuracies}
    by_latency = sorted(accuracies, key=lambda n: snapshot.trials[n].latency_ms)
    assert rows == [
        (str(n), f"{100 * proxy[n]:.2f}", f"{100 * accuracies[n]:.2f}", "50.00%" if n == 5 else "–") for n in by_latency
    ]
    figure = json.loads(re.search(r'id="figures">(.*?)</script>', text)[1])["full"]["data"][1]
    assert figure["x"] == [proxy[n] for n in by_latency]
    assert figure["y"] == [accuracies[n] for n in by_latency]
    assert "too few models to judge the proxy task" in text
