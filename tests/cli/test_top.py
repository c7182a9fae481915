"""``appliance top``: what changed between two looks at the metrics of a real appliance."""

from pathlib import Path

import pytest
from rich.console import Console

from appliance.cli import top
from appliance.client import Client
from appliance.errors import CallFailed, ConfigError
from tests import forge
from tests.forge import Forge
from tests.running import running


def test_models_calls_and_the_log_are_shown_as_they_are(tmp_path: Path) -> None:
    made = Forge()
    site = made.site(tmp_path, [made.bundle()])
    folder = site.client("reader")
    with running(site) as found:
        url = f"http://127.0.0.1:{found.metrics_port}/metrics"
        before = top.read(url)
        with Client.from_files(
            f"localhost:{found.port}", folder / "ca.crt", folder / "client.crt", folder / "client.key"
        ) as client:
            client.classify("forged", [forge.png(forge.image(seed)) for seed in range(5)])
            with pytest.raises(CallFailed):
                client.classify("forged", [b"junk"])
        now = top.read(url)
    console = Console(width=140, record=True, file=(tmp_path / "screen").open("w"))
    console.print(top.view(before, now))
    shown = console.export_text()
    assert "forged" in shown
    assert "CPU" in shown
    assert "invalid_input" in shown
    assert "the last rows, and in validation" in shown
    assert "5.0%" in shown, "of the abstentions in the forged validation"
    assert "written" in shown
    assert now.by("appliance_rows_total", "model")[("forged",)] - before.by("appliance_rows_total", "model").get(
        ("forged",), 0.0
    ) == pytest.approx(5)
    with pytest.raises(ConfigError, match="is it running"):
        top.read(url)
