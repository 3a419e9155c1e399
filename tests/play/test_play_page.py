"""The page of `play` in a browser: drawing, dropping a photo, sliders, the keyboard, and a training that goes on."""

import subprocess
import sys
import threading
import time

import chromium
import pytest

from cnntrain.play.network import Network
from cnntrain.play.progress import progress
from cnntrain.play.site import Site, serve
from cnntrain.runtime.reporter import Silence

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium is here")
SAID = "document.querySelector('#said').textContent"
SEEN = "document.querySelector('#seen').src"
ANSWERED = "document.querySelectorAll('#bars li').length > 0"


@pytest.fixture
def page(tmp_path):
    """Opens the page of a run in a browser."""
    servers = []
    with chromium.browser(tmp_path / "profile") as browser:

        def open_page(run, **window):
            network = Network(run, ["trainer.device=cpu"], Silence())
            site = Site(network, lambda: progress(run, network.epochs, not network.about()["follows"]))
            server = serve(site, 0)
            servers.append(server)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            browser.open(f"http://127.0.0.1:{server.port}/{site.token}/", **window)
            browser.wait(ANSWERED)
            return browser

        yield open_page
        assert browser.faults() == []
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_drawing_is_answered_while_it_is_drawn_and_the_keyboard_draws_too(page, photo_runs):
    browser = page(photo_runs / "digits")
    before = browser.run(SEEN)
    left, top, width = browser.run(
        "(() => { const box = document.querySelector('#pad').getBoundingClientRect();"
        " return [box.left, box.top, box.width] })()"
    )
    browser.drag([(left + width * 0.3 + 4 * step, top + width * 0.3 + 6 * step) for step in range(12)])
    browser.wait(f"{SEEN} !== '{before}'")
    browser.run("document.querySelector('#clear').click()")
    assert browser.run(SAID) == "Draw something, or take an image."
    assert not browser.run(ANSWERED)
    browser.run("document.querySelector('#pad').focus()")
    pen = "document.querySelector('#pen')"
    state = f"[{pen}.hidden, {pen}.className, {pen}.style.left, document.querySelector('#pen-state').textContent]"
    browser.press("ArrowRight")
    assert browser.run(state) == [False, "", "53.5714%", "Pen up"]
    for key in (" ", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight"):
        browser.press(key)
    assert browser.run("bounds().height > 40 && bounds().width > 30")
    assert browser.run(state) == [False, "down", "60.7143%", "Pen down"]
    browser.wait(ANSWERED)
    browser.run("document.querySelector('#pad').blur()")
    assert browser.run(f"{pen}.hidden")
    assert not browser.run("document.querySelector('#fit').disabled")
    browser.run("document.querySelector('#next').click()")
    browser.wait("document.querySelector('#fit').disabled")


def test_a_photo_is_dropped_moved_and_turned(page, photo_runs):
    browser = page(photo_runs / "run")
    content = list((photo_runs / "photos/test/red/0.png").read_bytes())
    browser.run(
        "(() => { const files = new DataTransfer();"
        f" files.items.add(new File([new Uint8Array({content})], '<b>red.png'));"
        " document.dispatchEvent(new DragEvent('drop', {dataTransfer: files, cancelable: true})) })()"
    )
    browser.wait("document.querySelector('#truth').textContent.startsWith('<b>red.png: as the network')")
    for slider, value in (("right", 4), ("turn", 30), ("noise", 0.3)):
        before = browser.run(SEEN)
        browser.run(
            f"document.querySelector('#{slider}').value = {value};"
            f" document.querySelector('#{slider}').dispatchEvent(new Event('input'))"
        )
        browser.wait(f"{SEEN} !== '{before}'")
    browser.run("document.querySelector('#reset').click()")
    assert browser.run("document.querySelector('#turn').value") == "0"


def test_what_is_no_picture_is_told_on_the_page_which_goes_on(page, photo_runs):
    browser = page(photo_runs / "run")
    browser.run("sendFile(new File(['words'], 'words.txt'))")
    assert "no picture that can be shown" in browser.wait("document.querySelector('#trouble').textContent")
    browser.run("document.querySelector('#next').click()")
    browser.wait("document.querySelector('#trouble').hidden")


@pytest.mark.parametrize("dark", [pytest.param(False, marks=pytest.mark.slow), True])
def test_it_fits_a_phone_and_on_a_small_screen_sliders_answer_and_maps_are_seen_together(page, photo_runs, dark):
    browser = page(photo_runs / "run", width=390, height=844, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    tops = browser.run(
        "['pad', 'said', 'bars', 'right', 'noise', 'maps'].map(name => $(name).getBoundingClientRect().top)"
    )
    assert tops == sorted(tops)
    assert tops[2] < 844
    browser.call("Emulation.setDeviceMetricsOverride", width=1366, height=700, deviceScaleFactor=1, mobile=False)
    browser.run("$('maps').scrollIntoView({block: 'end'})")
    for name in ("pad", "noise", "width", "bars", "maps"):
        top, bottom = browser.run(f"(({{top, bottom}}) => [top, bottom])($('{name}').getBoundingClientRect())")
        assert bottom > 0
        assert top < 700
        assert name == "bars" or bottom <= 701
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(18, 19, 21)") == dark


def test_a_name_of_a_class_is_text_and_nothing_else(page, photo_runs):
    browser = page(photo_runs / "run")
    browser.run(
        "show({finite: true, answers: [{class: '<img src=x onerror=alert(1)>', share: 1, given: true}],"
        " seen: '', heat: '', maps: null, label: 'x'})"
    )
    assert browser.run("document.querySelectorAll('#bars img, #said img').length") == 0
    assert "<img src=x" in browser.run(SAID)


@pytest.mark.slow
def test_a_run_of_three_epochs_is_watched_to_its_end(page, here):
    words = ["model=lenet5", "trainer=cpu", "trainer.threads=1", "trainer.epochs=3", "out=run", "data.batch_size=8"]
    run = here / "run"
    process = subprocess.Popen([sys.executable, "-m", "cnntrain", *words], stdout=subprocess.DEVNULL)
    try:
        while not (run / "checkpoints/last").is_dir():
            assert process.poll() is None
            time.sleep(0.05)  # between two looks
        browser = page(run)
        first = browser.wait("stamp")
        browser.wait(f"stamp !== '{first}'")
        assert process.wait(60) == 0
        browser.wait("document.querySelector('#course-about').textContent.includes('3 of 3 epochs')")
        assert browser.run("document.querySelectorAll('#charts polyline').length") == 4
        assert "Weights: last save: epoch 3, step " in browser.run("document.querySelector('#about').textContent")
    finally:
        process.kill()
        process.wait()
