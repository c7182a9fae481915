"""The demo is the product's own promise: what the README says of it must be so."""

import json
import subprocess
import sys
from pathlib import Path

from appliance import config

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_does_the_whole_job_and_ends_by_itself(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "appliance", "demo", "--out", str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["top_class_agreement"] == 1.0
    assert report["served_accuracy"] == report["torch_accuracy"] >= 0.95
    assert report["parity_max_abs_logit"] <= 1e-4
    assert report["audit_verified"] is True
    assert report["tampered_bundle_refused"] is True
    assert report["audit_records"] > report["images"] == 400
    for kind, counts in report["decisions"].items():
        share = counts.get("ACCEPT", 0) / sum(counts.values())
        assert share > 0.85 if kind == "digits" else share < 0.5, kind
    config.read(out / "site" / "appliance.toml")  # ready to serve again
    assert {path.name for path in (out / "client").iterdir()} == {"ca.crt", "client.crt", "client.key"}
    assert (out / "digits.bundle").stat().st_size > 0
    assert (out / "digits.grant").stat().st_size > 0
