"""The page of a scored model in a real browser."""

import io

import pytest
from PIL import Image

from mnas.pages.scored import scored_page
from tests.pages.test_gallery import filled
from tests.pages.test_scored_page import ATTACK, model

chromium = pytest.importorskip("chromium", reason="websocket-client is missing (the dev extra)", exc_type=ImportError)
pytestmark = pytest.mark.skipif(chromium.PATH is None, reason="no chromium; scripts/install-test-tools installs it")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.running_browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.mark.parametrize("classes", [10, 40])
def test_it_shows_all_images_offline_in_both_themes_and_on_a_phone(browser, tmp_path, classes):
    gallery, *_ = filled(600, classes, 100)
    path = tmp_path / "report.html"
    path.write_text(scored_page(model([f"{ATTACK} {i}" for i in range(classes)], title=ATTACK), gallery))
    with browser.tab() as tab:
        tab.open(path.as_uri(), width=1300, height=1000)
        assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert tab.evaluate("document.images.length") > 100
        assert tab.evaluate("window.hit === undefined")
        assert ATTACK in tab.evaluate("document.querySelector('h1').innerText")
        background = "getComputedStyle(document.body).backgroundColor"
        light = tab.evaluate(background)
        cell = "getComputedStyle(document.querySelector('.matrix td.wrong')).backgroundColor"
        assert tab.evaluate(cell).startswith("rgba(217, 72, 43, 0.")
        screenshot = Image.open(io.BytesIO(tab.screenshot()))
        assert screenshot.width == 1300
        tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        tab.wait_for(f"{background} !== '{light}'")
        tab.resize(390, 800)
        assert tab.evaluate("document.documentElement.scrollWidth") == 390  # wide tables scroll within the page
        assert tab.evaluate("document.querySelector('.matrix').parentElement.scrollWidth") > 390
        assert chromium.complaints(tab) == []
        assert chromium.requests(tab) == {"file", "data"}
