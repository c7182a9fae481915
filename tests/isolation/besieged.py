"""What is besieged: a site with two versions of one model and another model, each of which answers in its own way."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx

from appliance.audit.checkpoint import VerifierKey
from appliance.audit.verify import verify
from appliance.bundle.manifest import ModelId
from tests import forge
from tests.forge import Forge, ForgedSite
from tests.isolation.attacks import Model
from tests.running import END_S_MAX, Running, records, running

PLAINTEXT = '[server.plaintext]\naddress = "127.0.0.1:0"\nroles = ["predict"]\n'
ONE, TWO, OTHER = Model("forged", "1", 1), Model("forged", "2", 2), Model("other", "1", 10)


def shifted(vendor: Forge, shown: Model) -> bytes:
    """The forged model under a name and a version, its every logit higher by the offset."""
    model, number = forge.model(), int(shown.version)
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(forge.B + np.float32(shown.offset), "B"))
    golden = forge.golden(shown.offset)
    named = ModelId(shown.name, number, 1)
    made = forge.manifest(model=named, bundle_id=f"{number:02x}{shown.name.encode().hex():0>30}"[:32])
    return vendor.bundle(made, forge.parts() | {"graph": model.SerializeToString(), "selftest": golden.encode()})


def site_of(folder: Path) -> ForgedSite:
    vendor = Forge()
    return vendor.site(folder, [shifted(vendor, model) for model in (ONE, TWO, OTHER)], PLAINTEXT)


@contextmanager
def heard(appliance: Running) -> Iterator[list[str]]:
    """Reads what the appliance logs, so that the pipe never fills; ends it, which must go well.

    A hostile call may cost a line with a traceback, and an appliance whose log nobody reads stands still when it is full.
    """
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(appliance.process.stdout or ()), name="log", daemon=True)
    reader.start()
    try:
        yield lines
    finally:
        appliance.process.terminate()
        reader.join(END_S_MAX)
        assert appliance.process.wait(END_S_MAX) == 0, "".join(lines[-5:])


@contextmanager
def besieged(folder: Path) -> Iterator[Running]:
    """A serving appliance; when the block ends, it must have ended well, and every record of its log must be sound."""
    site = site_of(folder)
    with running(site) as appliance, heard(appliance):
        yield appliance
    key = VerifierKey.decode((site.root / "audit" / "log.vkey").read_text())
    assert verify(site.root / "audit", key).size == len(records(site))
