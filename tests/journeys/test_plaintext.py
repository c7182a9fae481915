"""The plaintext hunt: a model is loaded, serves, is killed, is made to dump core; then every file is searched for it.

The graph and the weights carry marks. Where the machine lets us, everything stands on a file system of its own in an image
file, and that is searched as a whole, so that a file that was removed, or never had a name, is found too. A control
shows that the search would find it.
"""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from appliance.bundle.manifest import ModelId
from appliance.client import Client
from appliance.model import inputs
from appliance.model.golden import GoldenCases
from tests import forge
from tests.forge import Forge, ForgedSite
from tests.journeys.test_serving import infer
from tests.running import running

GRAPH_MARK, WEIGHTS_MARK, CONTROL_MARK = b"GRAPH-mark-5b1e9c", b"WEIGHTSmark-7f3a", b"CONTROLmark-9c02"
IMAGE_BYTES = 192 << 20


@dataclass(frozen=True)
class Ground:
    """Where everything lies that is searched: a mounted file system and its image, or just a folder."""

    folder: Path
    image: Path | None

    def found(self, mark: bytes) -> list[str]:
        """Every place that holds a mark."""
        subprocess.run(["sync"], check=True)
        places = [str(path) for path in self.folder.rglob("*") if path.is_file() and mark in path.read_bytes()]
        if self.image is not None and mark in self.image.read_bytes():
            places.append("the image of the file system")
        return places


@contextmanager
def ground(tmp_path: Path) -> Iterator[Ground]:
    folder, image = tmp_path / "ground", tmp_path / "image"
    folder.mkdir()
    if not _mounts(folder, image):
        yield Ground(folder, None)
        return
    try:
        yield Ground(folder, image)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _mounts(folder: Path, image: Path) -> bool:
    """Whether a file system could be made and mounted: that needs rights which a developer may not have."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        return False
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    return subprocess.run(["mount", "-o", "loop", str(image), str(folder)], capture_output=True, check=False).returncode == 0


def marked(vendor: Forge, number: int) -> bytes:
    """A version whose graph and whose weights carry the marks. Sixteen ASCII bytes are four ordinary float32 numbers."""
    weights = forge.W.copy()
    weights.reshape(-1)[:4] = np.frombuffer(WEIGHTS_MARK, np.float32)
    model = forge.model()
    model.graph.name = GRAPH_MARK.decode()
    images = [forge.png(forge.image(seed)) for seed in range(3)]
    decoded = inputs.decode(forge.SPEC, images)
    logits = np.asarray(decoded.reshape(len(images), -1).astype(np.float32) @ weights + forge.B, np.float32)
    changed = {
        "graph": model.SerializeToString(),
        "weights": weights.tobytes(),
        "selftest": GoldenCases.of_encoded(images, logits).encode(),
        "card": forge.CARD,
    }
    assert WEIGHTS_MARK in changed["weights"]
    assert GRAPH_MARK in changed["graph"]
    made = forge.manifest(model=ModelId("forged", number, 1), bundle_id=f"{number:032x}", golden=forge.Golden(3, 1_000_000))
    return vendor.bundle(made, changed)


def use(site: ForgedSite, bundle: bytes, permit: bytes, end: signal.Signals) -> None:
    """Everything in which plaintext is at hand: start, answer, install, activate, roll back; and an end without warning."""
    (site.root.parent / "2.bundle").write_bytes(bundle)
    with running(site) as appliance:
        if end != signal.SIGKILL:
            resource.prlimit(appliance.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        with Client.on_socket(site.root / "operator.sock") as operator:
            operator.install_model(site.root.parent / "2.bundle", permit)
            operator.activate_model("forged", 2)
            operator.roll_back_model("forged", 1, "back again")
        appliance.inference("reader").ModelInfer(infer(np.stack([forge.image(seed) for seed in range(16)])))
        os.kill(appliance.pid, end)
        appliance.process.wait()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_no_plaintext_of_a_model_is_ever_on_a_disk(
    tmp_path: Path, end: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    if end != signal.SIGKILL and resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("this machine lets no process dump core")
    with ground(tmp_path) as place:
        for name in ("home", "temporary"):
            (place.folder / name).mkdir()
        monkeypatch.setenv("HOME", str(place.folder / "home"))
        monkeypatch.setenv("TMPDIR", str(place.folder / "temporary"))
        vendor = Forge()
        one, two = marked(vendor, 1), marked(vendor, 2)
        site = vendor.site(place.folder, [one])
        vendor.publish(two)
        vendor.say(site.repository)
        site.trust()
        use(site, two, vendor.grant_today(two), end)
        for mark in (GRAPH_MARK, WEIGHTS_MARK):
            assert place.found(mark) == []
        _control(place)


def _control(place: Ground) -> None:
    """A file that is written and removed is gone from every folder, and found in the image."""
    path = place.folder / "control"
    path.write_bytes(CONTROL_MARK * 64)
    assert str(path) in place.found(CONTROL_MARK)
    ctypes.CDLL(None).sync()
    path.unlink()
    assert place.found(CONTROL_MARK) == ([] if place.image is None else ["the image of the file system"])
