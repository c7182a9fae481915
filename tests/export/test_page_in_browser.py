"""The page in a real browser: it loads whole, asks nobody for anything, prints, and has something to see."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.page import page
from tests.export import found

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
SECONDS_MAX = 120
NOBODY = "not an origin"  # who asks, in the browser's log, where it is not a page


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(found.findings()), encoding="utf-8")
    return path


def browse(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """One visit. The browser has business of its own with its makers; it finds no way out of this machine."""
    assert BROWSER is not None
    quiet = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
    alone = ("--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND")
    return subprocess.run(
        [
            *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *quiet, *alone),
            *("--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={file.parent / 'profile'}"),
            *options,
            file.as_uri(),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )


def shown(file: Path, width: int, height: int, *options: str) -> np.ndarray:
    """A screenshot, float64 ``[height, width]``, grey."""
    picture = file.parent / "shown.png"
    picture.unlink(missing_ok=True)
    browse(file, f"--window-size={width},{height}", f"--screenshot={picture}", *options)
    with Image.open(picture) as image:
        assert image.width == width
        return np.asarray(image.convert("L"), np.float64)


def asked_for(file: Path) -> set[str]:
    """Whatever the page, not the browser itself, asks the network for."""
    log = file.parent / "net.json"
    browse(file, f"--log-net-log={log}", "--dump-dom")
    # An event is a line of its own; the last may be cut off, where the browser ended first.
    lines = [line.rstrip(",") for line in log.read_text(encoding="utf-8").splitlines()]
    found = [json.loads(line)["params"] for line in lines if re.fullmatch(r'\{"params":.*\}', line)]
    return {each["url"] for each in found if "url" in each and each.get("initiator", NOBODY) != NOBODY}


def test_page_loads_without_a_complaint(file: Path) -> None:
    visit = browse(file, "--dump-dom")
    assert "CONSOLE" not in visit.stderr
    assert visit.stdout.count("<svg") == 5  # the browser closed none of them early
    assert "Where it comes from" in visit.stdout


def test_page_asks_nobody_for_anything(file: Path) -> None:
    assert asked_for(file) == set()
    asking = file.parent / "asking.html"
    picture = '<main><img src="http://192.0.2.1/x.png" alt="x">'
    asking.write_text(file.read_text(encoding="utf-8").replace("<main>", picture), encoding="utf-8")
    assert asked_for(asking) == set()  # the page's own policy stops what somebody might add
    assert "CONSOLE" in browse(asking, "--dump-dom").stderr
    bare = re.sub("<meta http-equiv[^>]*>", "", asking.read_text(encoding="utf-8"))
    asking.write_text(bare, encoding="utf-8")
    assert asked_for(asking) == {"http://192.0.2.1/x.png"}  # and this would be seen


@pytest.mark.parametrize("width", [1280, 400])
def test_page_has_something_to_see_and_fits_the_width(file: Path, width: int) -> None:
    seen = shown(file, width, 3000)
    paper = np.median(seen)
    assert paper > 250
    inked = np.abs(seen - paper) > 60
    assert 0.005 < inked.mean() < 0.5
    assert inked[:, -8:].mean() < 0.002  # nothing runs out of the page on the right
    for part in np.array_split(inked, 6):
        assert part.any()


def test_dark_is_dark_with_light_letters(file: Path) -> None:
    seen = shown(file, 1280, 2000, "--force-dark-mode")
    assert np.median(seen) < 40
    assert (seen > 180).mean() > 0.005


def test_page_prints(file: Path) -> None:
    printed = file.parent / "printed.pdf"
    browse(file, f"--print-to-pdf={printed}", "--no-pdf-header-footer")
    data = printed.read_bytes()
    assert data.startswith(b"%PDF-")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 20
