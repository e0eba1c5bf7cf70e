"""A report in a real browser."""

import io

import pytest
from PIL import Image

from mnas.report.devices import views
from mnas.report.facts import facts_of
from mnas.report.html import write_report, write_snapshot_report
from mnas.study import read_run

chromium = pytest.importorskip("chromium", reason="websocket-client is missing (the dev extra)", exc_type=ImportError)
pytestmark = pytest.mark.skipif(chromium.PATH is None, reason="no chromium; scripts/install-test-tools installs it")

DONE, FAILED, SKIPPED, RUNNING = "complete", "failed", "skipped", "running"
CHARTS = ("scatter", "reward", "hypervolume", "histogram", "entropy", "updates")
KEYS = {"End": 35, "ArrowUp": 38}

PLACE_OF_A_POINT = """(() => {
  const plot = document.getElementById("scatter"), layout = plot._fullLayout;
  const trace = plot.data.find(t => t.name === "Pareto front"), box = plot.getBoundingClientRect();
  return [box.left + layout.xaxis._offset + layout.xaxis.l2p(trace.x[INDEX]),
          box.top + layout.yaxis._offset + layout.yaxis.l2p(trace.y[INDEX])];
})()"""
TOOLTIP = "[...document.querySelectorAll('#scatter .hoverlayer text')].map(e => e.textContent).join(' ')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.running_browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


def colours(screenshot: Image.Image, box: tuple[int, int, int, int]) -> int:
    return len(screenshot.crop(box).convert("RGB").getcolors(1 << 24))


def box_of(tab, element: str) -> tuple[int, int, int, int]:
    """Return the position of an element on the whole page, in pixels."""
    script = f"(b => [b.left + scrollX, b.top + scrollY, b.right + scrollX, b.bottom + scrollY])({element})"
    return tuple(round(v) for v in tab.evaluate(script))


def test_a_report_opens_shows_a_trial_and_is_not_blank(make_run, browser):
    run = make_run([DONE] * 14 + [FAILED, SKIPPED] + [DONE] * 4 + [RUNNING], status="finished")
    facts = facts_of(read_run(run))
    with browser.tab() as tab:
        tab.open(write_report(run).as_uri(), width=1300, height=1000)
        assert tab.evaluate("document.title") == "mnas: synthetic (finished)"
        for name in CHARTS:
            tab.wait_for(f"document.querySelectorAll('#{name} .main-svg').length > 0")

        for index, candidate in list(enumerate(facts.front))[:: len(facts.front) - 1]:  # the first and the last
            tab.evaluate("document.getElementById('scatter').scrollIntoView({block: 'center'})")
            tab.settle()
            x, y = tab.evaluate(PLACE_OF_A_POINT.replace("INDEX", str(index)))
            tab.move_mouse(x, y)
            text = tab.wait_for(f"(t => t.includes('trial {candidate.number}') && t)({TOOLTIP})")
            for expected in (
                f"{candidate.accuracy:.2%}",
                f"{candidate.params:,} params",
                *candidate.arch.block_strings,
            ):
                assert expected in text
            tab.move_mouse(1, 1)
            tab.wait_for(f"{TOOLTIP} === ''")

        tab.evaluate("scrollTo(0, 0)")
        screenshot = Image.open(io.BytesIO(tab.screenshot()))
        assert screenshot.width == 1300
        assert screenshot.height > 2000
        for name in CHARTS:  # a blank area has one colour, and text alone a few dozen shades of one
            assert colours(screenshot, box_of(tab, f"document.getElementById('{name}').getBoundingClientRect()")) > 50
        drawing = "document.querySelector('.drawing svg').getBoundingClientRect()"
        assert colours(screenshot, box_of(tab, drawing)) > 50
        assert chromium.complaints(tab) == []
        assert chromium.requests(tab) == {"file"}


def test_the_selector_shows_each_devices_own_front(make_snapshot, browser):
    snapshot = make_snapshot([DONE] * 25 + [SKIPPED] * 3, devices=2)
    found = views(facts_of(snapshot))
    path = write_snapshot_report(snapshot)
    shown = "document.getElementById('scatter')"
    with browser.tab() as tab:
        tab.open(path.as_uri(), width=1300, height=1000)
        tab.wait_for(f"{shown}.querySelectorAll('.main-svg').length > 0")
        names = tab.evaluate("[...document.querySelector('select').options].map(o => o.text)")
        assert names == ["all devices together: the worst multiple of a device's T", "host", "board"]
        for index in (2, 1, 0):
            view = found[index]
            # use the keyboard to change the selection, as a reader would
            tab.evaluate("document.querySelector('select').focus()")
            key = "End" if index == 2 else "ArrowUp"
            for kind in ("rawKeyDown", "keyUp"):
                tab.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])
            title = f"latency on {view.device} (ms)" if view.device else "combined latency of all devices (ms on host)"
            tab.wait_for(f"{shown}.layout.xaxis.title.text === '{title}'")
            x = tab.evaluate(f"{shown}.data.find(t => t.name === 'Pareto front').x")
            assert x == pytest.approx([view.latency(c).latency_ms for c in view.front])
            tab.evaluate(f"{shown}.scrollIntoView({{block: 'center'}})")
            tab.settle()
            first = view.front[0]
            place = tab.evaluate(PLACE_OF_A_POINT.replace("INDEX", "0"))
            tab.move_mouse(*place)
            text = tab.wait_for(f"(t => t.includes('trial {first.number}') && t)({TOOLTIP})")
            for device, latency in first.latencies.items():
                assert f"{device} {latency.latency_ms:#.4g} ms" in text
                assert f"{latency.source} {'for' if latency.source == 'predicted' else 'on'} {latency.unit}" in text
            tab.move_mouse(1, 1)
            tab.wait_for(f"{TOOLTIP} === ''")
        assert chromium.complaints(tab) == []
        assert chromium.requests(tab) == {"file"}
        tab.resize(390, 800)
        tab.wait_for(f"{shown}._fullLayout.width <= 390")
        assert tab.evaluate("document.documentElement.scrollWidth") == 390


def test_it_fits_a_phone_and_follows_the_dark_theme(make_snapshot, browser):
    path = write_snapshot_report(make_snapshot([DONE] * 20))
    with browser.tab() as tab:
        tab.open(path.as_uri(), width=390, height=800)
        tab.wait_for("document.querySelectorAll('#updates .main-svg').length > 0")
        assert tab.evaluate("document.documentElement.scrollWidth") == 390  # wide tables scroll within the page
        assert tab.evaluate("document.querySelector('#front').parentElement.scrollWidth") > 390
        tab.wait_for("document.getElementById('scatter')._fullLayout.width <= 390")
        light = tab.evaluate("document.getElementById('scatter')._fullLayout.font.color")
        tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        tab.wait_for(f"document.getElementById('scatter')._fullLayout.font.color !== '{light}'")
        assert chromium.complaints(tab) == []


def test_what_users_name_does_not_run_and_nothing_leaves_the_machine(make_snapshot, browser):
    attack = "</script><script>window.hit = 1</script><img src=http://127.0.0.1:9/x onerror='window.hit = 2'>"
    snapshot = make_snapshot([DONE] * 3 + [FAILED], error=attack, class_names=(attack, "dog"))
    snapshot.attributes["references"][0]["name"] = attack
    path = write_snapshot_report(snapshot)
    with browser.tab() as tab:
        tab.open(path.as_uri(), width=1300, height=1000)
        tab.wait_for("document.querySelectorAll('#reward .main-svg').length > 0")
        assert tab.evaluate("window.hit === undefined")
        assert attack in tab.evaluate("document.body.innerText")
        legend = "[...document.querySelectorAll('#scatter .legendtext')].map(e => e.textContent)"
        assert any("window.hit" in text for text in tab.evaluate(legend))
        assert chromium.complaints(tab) == []
        assert chromium.requests(tab) == {"file"}
        # no button of the charts sends anything to a server
        buttons = tab.evaluate("[...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title || '')")
        assert len(buttons) > 6
        assert not [b for b in buttons if "cloud" in b.lower() or "share" in b.lower()]


@pytest.mark.parametrize(
    "states",
    [
        pytest.param([], id="none"),
        pytest.param([RUNNING] * 3, id="running", marks=pytest.mark.slow),  # the page without trials, which has rows
        pytest.param([FAILED] * 10, id="failed"),
    ],
)
def test_a_report_without_candidates_opens_too(make_snapshot, browser, states):
    path = write_snapshot_report(make_snapshot(states))
    with browser.tab() as tab:
        tab.open(path.as_uri(), width=800, height=600)
        tab.wait_for("document.querySelectorAll('#scatter .main-svg').length > 0")
        assert "No candidate has been trained yet" in tab.evaluate("document.body.innerText")
        assert chromium.complaints(tab) == []
