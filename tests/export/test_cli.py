"""The vendor's desk, from keys to a grant; and what it refuses, leaving nothing behind."""

import io
import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from appliance.bundle import enrolment, opening
from appliance.bundle.enrolment import RecipientKey
from appliance.canonical import format_time, parse_time
from appliance.errors import ConfigError
from appliance.model import inputs, unknown
from appliance.model.decision import Decision, Judge
from appliance.model.golden import GoldenCases
from export import files
from export.trust import Repository
from tests.export.desk import DIGITS, EVERY_ROLE, ROOT, Desk, Opened, run_command

SEED = bytes(range(32))
REQUEST = enrolment.request(SEED, "Example Hospital", "2026-01-01T00:00:00Z")
FINGERPRINT = enrolment.read(REQUEST).fingerprint


@pytest.fixture
def grant_options(desk: Desk, tmp_path: Path) -> list[object]:
    (tmp_path / "site.enrolment").write_bytes(REQUEST)
    named = {
        "--bundle": desk.bundle,
        "--content-key": desk.bundle.with_suffix(".content-key"),
        "--enrolment": tmp_path / "site.enrolment",
        "--key": desk.keys / "licensing.key",
        "--passphrase-file": desk.passphrase,
        "--repository": desk.repository,
        "--days": 365,
        "--out": tmp_path / "site.grant",
    }
    return [item for pair in named.items() for item in pair]


def test_private_files_are_private_and_public_ones_are_not(desk: Desk) -> None:
    private = [desk.keys / "exporter.key", desk.keys / "licensing.key", desk.bundle.with_suffix(".content-key")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in private] == [0o600] * 3
    assert stat.S_IMODE((desk.keys / "exporter.pem").stat().st_mode) & 0o044


def test_keys_are_never_overwritten(desk: Desk) -> None:
    before = (desk.keys / "exporter.key").read_bytes()
    code, _, err = run_command("keygen", "--out", desk.keys, *EVERY_ROLE, "--passphrase-file", desk.passphrase)
    assert (code, "would be overwritten" in err) == (2, True)
    assert (desk.keys / "exporter.key").read_bytes() == before


def test_bundle_and_its_content_key_are_never_overwritten(desk: Desk) -> None:
    """A new content key in the old one's place would make the old bundle unreadable for ever."""
    code, _, err = run_command("build", DIGITS / "recipe.py", "--data", desk.data, "--out", desk.bundle, *desk.build_options)
    assert (code, "would be overwritten" in err) == (2, True)


def test_granted_bundle_opens_at_the_site(desk: Desk, grant_options: list[object], tmp_path: Path) -> None:
    """The whole road: keygen, build, grant, and then the product's own order of trust."""
    code, out, err = run_command("grant", *grant_options, "--fingerprint", FINGERPRINT.replace(" ", "").upper())
    assert (code, err) == (0, "")
    assert "Example Hospital" in out
    assert out.splitlines()[-2] == f"fingerprint  {FINGERPRINT}", "below whatever the request says of itself"
    genuine = opening.parse(desk.bundle.read_bytes()).verify([Repository(desk.repository).policy])
    ticket = (tmp_path / "site.grant").read_bytes()
    admitted = genuine.admit(ticket, RecipientKey.of(SEED), datetime.now(UTC))
    assert (admitted.terms.site, admitted.terms.grace_days) == ("Example Hospital", 30)
    assert (admitted.terms.not_after - admitted.terms.not_before).days == 365
    assert parse_time(format_time(admitted.terms.not_after)) == admitted.terms.not_after
    assert set(admitted.decrypt().parts) == {"graph", "weights", "selftest", "card", "reference"}


def test_nothing_is_granted_that_every_site_would_refuse(desk: Desk, grant_options: list[object], tmp_path: Path) -> None:
    """Because its vendor has revoked it, say."""
    shutil.copytree(desk.repository, tmp_path / "repository")
    digest = next(iter(Repository(desk.repository).policy.bundles))
    code, _, err = run_command(
        "trust", "revoke", tmp_path / "repository", "--digest", digest, "--reason", "Wrong for children.",
        "--key", desk.keys / "release.key", "--passphrase-file", desk.passphrase,
    )  # fmt: skip
    assert (code, err) == (0, "")
    options = [tmp_path / "repository" if word == desk.repository else word for word in grant_options]
    code, _, err = run_command("grant", *options, "--fingerprint", FINGERPRINT)
    assert (code, err) == (3, "The vendor has revoked this bundle: Wrong for children.\n")
    assert not (tmp_path / "site.grant").exists()


@pytest.mark.parametrize(("broken", "sentence"), [
    (lambda data: data, "signed by this key already"),
    (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "not what was signed"),
    (lambda data: data[:60_000], "does not end where"),
])  # fmt: skip
def test_nothing_is_signed_again_that_is_not_whole(
    desk: Desk, tmp_path: Path, broken: Callable[[bytes], bytes], sentence: str
) -> None:
    """Or the exporter's key would vouch for whatever came on a medium."""
    (tmp_path / "brought").write_bytes(broken(desk.bundle.read_bytes()))
    options = ["--exporter", desk.keys / "exporter.pem", "--out", tmp_path / "signed", *desk.build_options]
    code, _, err = run_command("sign", tmp_path / "brought", *options)
    assert (code, sentence in err) == (3, True)
    assert not (tmp_path / "signed").exists()


def test_grant_is_refused_where_the_fingerprint_differs(grant_options: list[object], tmp_path: Path) -> None:
    code, _, err = run_command("grant", *grant_options, "--fingerprint", "0000 0000 0000 0000 0000")
    assert (code, FINGERPRINT in err) == (3, True)
    assert not (tmp_path / "site.grant").exists()


def test_grant_asks_a_person_where_no_fingerprint_is_given(grant_options: list[object], tmp_path: Path) -> None:
    assert run_command("grant", *grant_options, answer="n\n")[0] == 130
    assert not (tmp_path / "site.grant").exists()
    assert run_command("grant", *grant_options, answer="y\n")[0] == 0
    assert (tmp_path / "site.grant").exists()


def test_wrong_passphrase_is_one_sentence(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("not it\n")
    options = ["--key", desk.keys / "exporter.key", "--passphrase-file", tmp_path / "wrong"]
    code, _, err = run_command("build", DIGITS / "recipe.py", "--data", desk.data, "--out", tmp_path / "a.bundle", *options)
    assert (code, err.count("\n")) == (3, 1)
    assert "another passphrase" in err


def test_licensing_key_cannot_sign_a_bundle(desk: Desk, tmp_path: Path) -> None:
    """One key, one purpose."""
    options = ["--key", desk.keys / "licensing.key", "--passphrase-file", desk.passphrase]
    command = ["build", DIGITS / "recipe.py", "--data", desk.data, "--out", tmp_path / "a.bundle", *options]
    assert run_command(*command)[0] == 3


def few_images(desk: Desk, folder: Path, each: int) -> Path:
    """The example's data with only so many validation images of each label."""
    for source in sorted((desk.data / "validation").glob("*")):
        own = folder / "validation" / source.name
        own.mkdir(parents=True)
        for path in sorted(source.iterdir())[:each]:
            shutil.copy(path, own)
    shutil.copy(desk.data / "weights.safetensors", folder)
    shutil.copytree(desk.data / "training", folder / "training")
    return folder


@pytest.mark.parametrize(
    ("each", "said"), [(5, "at least 100 validation cases, and there are 50"), (10, "No threshold keeps the error")]
)
def test_refused_build_leaves_no_file(desk: Desk, tmp_path: Path, each: int, said: str) -> None:
    """Too few images, or too few for the promise asked: one sentence, exit 3, an empty folder."""
    out = tmp_path / "out"
    out.mkdir()
    data = few_images(desk, tmp_path / "data", each)
    command = ["build", DIGITS / "recipe.py", "--data", data, "--out", out / "a.bundle", *desk.build_options]
    code, printed, err = run_command(*command)
    assert (code, printed, err.count("\n")) == (3, "", 1)
    assert said in err
    assert list(out.iterdir()) == []


def test_recipe_with_problems_is_exit_2(desk: Desk, tmp_path: Path) -> None:
    """In a process of its own: nothing on stdout, one sentence on stderr, no colour on a pipe, no file."""
    command = ["build", DIGITS / "recipe.py", "--data", tmp_path, "--out", tmp_path / "a.bundle", *desk.build_options]
    ended = subprocess.run([sys.executable, "-m", "export", *command], cwd=ROOT, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b"there is no file" in ended.stderr
    assert b"there is no folder" in ended.stderr
    assert b"\x1b" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_usage_error_is_exit_2() -> None:
    assert run_command("build")[0] == 2
    assert run_command("grant", "--yes")[0] == 2


def test_inspect_shows_what_is_signed(desk: Desk, opened: Opened) -> None:
    code, out, _ = run_command("inspect", desk.bundle, "--exporter", desk.keys / "exporter.pem", "--json")
    shown = json.loads(out)
    assert (code, shown["digest"], shown["model"]["id"]) == (0, opened.digest, "digits")
    assert opened.digest in run_command("inspect", desk.bundle, "--exporter", desk.keys / "exporter.pem")[1]
    assert run_command("inspect", desk.bundle, "--exporter", desk.keys / "licensing.pem")[0] == 3


def test_inspect_refuses_an_altered_bundle(desk: Desk, tmp_path: Path) -> None:
    altered = bytearray(desk.bundle.read_bytes())
    altered[-1] ^= 1
    (tmp_path / "a.bundle").write_bytes(altered)
    code, out, err = run_command("inspect", tmp_path / "a.bundle", "--exporter", desk.keys / "exporter.pem")
    assert (code, out, err) == (3, "", "A part of the bundle is not what was signed.\n")


def test_report_has_the_figures_and_no_path(desk: Desk, opened: Opened) -> None:
    text = desk.bundle.with_suffix(".report.json").read_text()
    report = json.loads(text)
    assert report["model"]["digest"] == opened.digest
    assert report["parity"] == opened.manifest.provenance.parity
    assert report["validation"]["accuracy"] > 0.95
    assert report["calibration"]["operating_point"]["bound"] <= 0.015
    assert sum(report["decisions"].values()) == report["validation"]["cases"] == 497
    assert str(desk.data) not in text


def test_golden_cases_replay(opened: Opened) -> None:
    """As a site will: decode the files in the bundle, run them, compare."""
    made = opened.manifest
    cases = GoldenCases.decode(opened.parts["selftest"], made.golden.cases, len(made.labels), made.inputs)
    files = [image for case in cases.cases for image in case[0].elements]
    assert len(files) == 12
    found = opened.session().run((inputs.decode(made.inputs[0], files),), 5).logits
    assert all(cases.check(i, row, made.golden.logit_tolerance_e6 / 1e6) <= 1e-4 for i, row in enumerate(found))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def letter(character: str) -> bytes:
    image = Image.new("L", (64, 64), 0)
    font = ImageFont.load_default(size=56)
    ImageDraw.Draw(image).text((32, 32), character, font=font, fill=255, anchor="mm")
    return png(np.asarray(image))


def test_example_reads_digits_and_declines_the_rest(desk: Desk, opened: Opened) -> None:
    """Most digits are answered, and rightly; most letters, noise and blank images are not answered."""
    made, rng = opened.manifest, np.random.default_rng(0)
    judge = Judge(made.decision, unknown.decode(made.decision.unknown.method, opened.parts["reference"], len(made.labels)))
    paths = sorted((desk.data / "test").glob("*/*.png"))
    groups = {
        "digits": [path.read_bytes() for path in paths],
        "letters": [letter(chr(code)) for code in range(ord("A"), ord("Z") + 1)],
        "noise": [png(rng.integers(0, 256, (64, 64), dtype=np.uint8)) for _ in range(50)],
        "fine noise": [png(rng.integers(0, 256, (8, 8), dtype=np.uint8)) for _ in range(50)],
        "blank": [png(np.full((64, 64), level, np.uint8)) for level in range(0, 256, 5)],
    }
    accepted = {}
    for name, group in groups.items():
        found = opened.session().run((inputs.decode(made.inputs[0], group),), 32)
        judgement = judge.judge(found.logits, found.embedding)
        accepted[name] = np.array([decision is Decision.ACCEPT for decision in judgement.decisions])
        if name == "digits":
            right = judgement.top == [int(path.parent.name) for path in paths]
            assert right[accepted[name]].mean() >= 0.97
    assert accepted.pop("digits").mean() >= 0.85
    assert {name: bool(rows.mean() <= 0.15) for name, rows in accepted.items()} == dict.fromkeys(accepted, True)


def test_files_appear_all_or_none(tmp_path: Path) -> None:
    """The second file cannot be written, so the first does not stay either; and nothing is written over."""
    with pytest.raises(OSError, match="No such file"):
        files.write_new({tmp_path / "a": (b"a", False), tmp_path / "none" / "b": (b"b", False)})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ConfigError, match="a would be overwritten"):
        files.write_new({tmp_path / "a": (b"new", False)})
    assert (tmp_path / "a").read_bytes() == b"old"
