"""The page of a trained detector in a real browser."""

import pytest

from mnas.pages.detected import detected_page
from tests.pages.test_detected_page import detected, one_class, picture
from tests.pages.test_scored_page import ATTACK

chromium = pytest.importorskip("chromium", reason="websocket-client is missing (the dev extra)", exc_type=ImportError)
pytestmark = pytest.mark.skipif(chromium.PATH is None, reason="no chromium; scripts/install-test-tools installs it")


def test_it_shows_curves_and_images_offline_and_on_a_phone(tmp_path):
    path = tmp_path / "report.html"
    classes = [one_class(f"{ATTACK} {i}") for i in range(30)]
    path.write_text(detected_page(detected(classes, title=ATTACK, misses=[picture(ATTACK)] * 9)))
    with chromium.running_browser(tmp_path) as browser, browser.tab() as tab:
        tab.open(path.as_uri(), width=1300, height=1000)
        assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth === 480)")
        assert tab.evaluate("document.images.length") == 10
        assert tab.evaluate("window.hit === undefined")
        stroke = "getComputedStyle(document.querySelector('.curve.second')).stroke"
        light = tab.evaluate(stroke)
        assert light == "rgb(217, 72, 43)"
        assert tab.evaluate("document.querySelector('.chart').getBoundingClientRect().width") > 400
        tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        tab.wait_for(f"{stroke} !== '{light}'")
        tab.resize(390, 800)
        assert tab.evaluate("document.documentElement.scrollWidth") == 390  # the table scrolls within the page
        assert chromium.complaints(tab) == []
        assert chromium.requests(tab) == {"file", "data"}
