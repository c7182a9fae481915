"""Clocks that are wrong, a year back and ten years on: what serves goes on, and nothing new is believed.

libfaketime puts the clock of a whole process wrong, python-tuf's and gRPC's with it.
"""

import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from appliance.oip.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests import forge
from tests.forge import Forge, ForgedSite
from tests.journeys.test_serving import infer
from tests.running import records, running

YEAR = timedelta(days=365)
OFFSETS = {"a year back": -YEAR, "ten years on": 10 * YEAR}
REFUSALS = {"a year back": "clock is behind", "ten years on": "expired"}
PLAINTEXT = '[server.plaintext]\naddress = "127.0.0.1:0"\nroles = ["predict"]\n'  # a certificate would be of another time

pytestmark = pytest.mark.skipif(
    shutil.which("faketime") is None, reason="faketime, which sets clocks wrong, is not installed"
)


def at(offset: timedelta) -> list[str]:
    """What to put before a command whose clock is to be wrong."""
    return ["faketime", f"{datetime.now(UTC) + offset:%Y-%m-%d %H:%M:%S}"]


def command(site: ForgedSite, offset: timedelta, *arguments: object) -> "subprocess.CompletedProcess[str]":
    asked = [*at(offset), sys.executable, "-m", "appliance", *map(str, arguments), "--site", str(site.root)]
    return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def site(tmp_path: Path) -> ForgedSite:
    """Version 1 is active, version 2 installed."""
    vendor = Forge()
    one, two = vendor.version(1), vendor.version(2)
    made = vendor.site(tmp_path, [one], PLAINTEXT)
    made.install(two)
    return made


@pytest.mark.parametrize("when", OFFSETS)
def test_nothing_is_activated_installed_or_trusted_by_a_wrong_clock(site: ForgedSite, when: str) -> None:
    bundle = site.root / "models" / "forged" / "2"
    for arguments in (
        ("models", "activate", "forged", 2),
        ("models", "install", "--bundle", bundle / "model.bundle", "--grant", bundle / "model.grant"),
        ("models", "renew", "--grant", bundle / "model.grant"),
        ("trust", "update", site.medium),
    ):
        ran = command(site, OFFSETS[when], *arguments)
        assert (ran.returncode, ran.stdout) == (3, ""), arguments
        assert REFUSALS[when] in ran.stderr
    assert [version.version for version in site.state.models["forged"].serving] == [1]


@pytest.mark.parametrize("when", OFFSETS)
def test_what_served_serves_on_under_a_wrong_clock_and_it_is_on_record(site: ForgedSite, when: str) -> None:
    with running(site, at(OFFSETS[when])) as appliance:
        with grpc.insecure_channel(f"127.0.0.1:{appliance.plaintext_port}") as channel:
            answer = GRPCInferenceServiceStub(channel).ModelInfer(infer(forge.image(1)[None]))
            assert answer.model_version == "1"
        assert appliance.stop() == 0
    kinds = {record["detail"]["kind"] for record in records(site) if record["event"] == "alarm"}
    assert kinds == ({"clock_behind"} if when == "a year back" else {"trust_over", "grant_over"})


def test_clock_that_was_ten_years_on_is_believed_again_on_a_persons_word(site: ForgedSite) -> None:
    assert command(site, 10 * YEAR, "state", "accept", "--reason", "by mistake").returncode == 0
    ran = command(site, timedelta(), "models", "activate", "forged", 2)
    assert (ran.returncode, "clock is behind" in ran.stderr) == (3, True)
    assert command(site, timedelta(), "state", "accept", "--reason", "the clock was ten years ahead").returncode == 0
    assert command(site, timedelta(), "models", "activate", "forged", 2).returncode == 0
