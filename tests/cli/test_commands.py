"""The commands, as a shell sees them: what they print, and the exit code that says whose fault it is."""

import json
import logging
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest

from appliance import cli, config
from appliance.bundle import enrolment
from appliance.bundle.enrolment import RecipientKey
from appliance.cli import serve
from tests import forge
from tests.bundle.breaking import flipped
from tests.cli.conftest import Enrolled
from tests.cli.running import run
from tests.forge import Forge

GROUPS = {
    "models": ("install", "renew", "activate", "rollback", "deactivate", "remove", "list", "card"),
    "trust": ("update", "show"), "state": ("accept",), "bundle": ("verify", "inspect"),
    "audit": ("verify", "tail", "show", "search", "prove", "receipt", "tiles", "send", "accept-gap",
              "prune", "new-epoch", "erase-epoch", "erase"),
}  # fmt: skip
COMMANDS = [
    ("init",), ("enroll",), ("serve",), ("predict",), ("check",), ("demo",), *((group,) for group in GROUPS),
    *((group, name) for group, names in GROUPS.items() for name in names),
]  # fmt: skip


@pytest.fixture
def copy(site: Enrolled, tmp_path: Path) -> Path:
    """The shared site's folder, to break."""
    return Path(shutil.copytree(site.root, tmp_path / "copy"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_explains_itself(command: tuple[str, ...], option: str) -> None:
    ran = run(*command, option)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: appliance {' '.join(command)} ")
    assert ran.out.split("\n\n")[1].strip().endswith(".")


def test_help_lists_every_command_and_the_exit_codes() -> None:
    ran = run("--help")
    assert all(f"\n  {name} " in ran.out for name in ("init", "enroll", "serve", *GROUPS, "predict", "check", "demo"))
    assert "Exit codes: 0 done" in ran.out


@pytest.mark.parametrize("arguments", [
    ("nonsense",), ("models", "nonsense"), ("init",), ("check", "--site", "no/such/folder"), ("bundle", "verify"),
    ("models", "activate", "forged", "0"), ("check", "--nonsense"), ("serve", "--config", "no-such.toml"),
])  # fmt: skip
def test_command_line_that_is_wrong_is_exit_two_and_no_traceback(arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage:")
    assert "Traceback" not in ran.err


def test_table_of_exit_codes_is_the_one_in_the_docstring() -> None:
    drawn = {int(line[0]) for line in (cli.__doc__ or "").splitlines() if line[:1].isdigit()}
    assert drawn == {0, 1, *(code for _, code in cli.EXITS)}


def test_a_site_is_made_enrolled_and_activated(site: Enrolled) -> None:
    """Each step ends with 0 and says what comes next; the fingerprint is that of the file."""
    assert [(ran.code, ran.err) for ran in site.said] == [(0, "")] * 5
    made, enrolled, trusted, installed, activated = (ran.out for ran in site.said)
    assert f"appliance enroll --site {site.root}" in made
    assert trusted.startswith("forge is trusted")
    request = (site.root / "enrolment.json").read_bytes()
    assert enrolled.splitlines()[-1] == enrolment.read(request).fingerprint
    assert enrolment.read(request).site == 'A "quoted" hôpital'
    assert f"appliance models activate forged 1 --site {site.root}" in installed
    assert activated.startswith("forged version 1 is active")


def test_enrolment_is_made_once_and_its_fingerprint_stays(copy: Path, site: Enrolled) -> None:
    """Whoever reads out another one than that of the file that was sent looks like an attacker."""
    before = (copy / "enrolment.json").read_bytes()
    ran = run("enroll", "--site", copy)
    assert (ran.code, ran.out.splitlines()[-1]) == (0, enrolment.read(before).fingerprint)
    assert (copy / "enrolment.json").read_bytes() == before
    (copy / "enrolment.json").write_bytes(enrolment.request(bytes(32), 'A "quoted" hôpital', "2026-01-01T00:00:00Z"))
    ran = run("enroll", "--site", copy)
    assert (ran.code, "another appliance's" in ran.err) == (2, True)


def test_site_keeps_its_secrets_to_its_owner(site: Enrolled) -> None:
    secrets = [*site.root.glob("keys/*"), *site.root.glob("secrets/*"), site.root / "tls" / "server.key"]
    assert len(secrets) == 5
    assert {path.stat().st_mode & 0o077 for path in [site.root, *secrets]} == {0}


def test_configuration_of_a_new_site_is_valid_and_denies_everyone(site: Enrolled) -> None:
    settings = config.read(site.root / "appliance.toml")
    assert (settings.rules, settings.plaintext_address, settings.site_name) == ((), None, 'A "quoted" hôpital')


def test_init_makes_no_site_in_which_no_socket_could_be(tmp_path: Path) -> None:
    ran = run("init", tmp_path / ("x" * 100), "--name", "x", "--dns", "x")
    assert (ran.code, "too long" in ran.err, list(tmp_path.iterdir())) == (2, True, [])


def test_init_leaves_what_is_there_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    ran = run("init", tmp_path, "--name", "x", "--dns", "x.example")
    assert ran.code == 2
    assert "not empty" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("options", [
    ("--name", "", "--dns", "x.example"), ("--name", "x" * 201, "--dns", "x.example"), ("--name", "x", "--dns", ""),
    ("--name", "x", "--dns", "x" * 65), ("--name", "x", "--dns", "hôpital.example"),
    ("--name", "x\x7f", "--dns", "x.example"),
])  # fmt: skip
def test_init_with_names_that_cannot_be_used_makes_nothing(tmp_path: Path, options: tuple[str, ...]) -> None:
    """So that the corrected command can be given at once."""
    ran = run("init", tmp_path / "site", *options)
    assert ran.code == 2
    assert ran.err.startswith("appliance: ")
    assert not (tmp_path / "site").exists()


def test_list_says_what_is_installed_and_active(site: Enrolled) -> None:
    ran = run("models", "list", "--site", site.root, "--json")
    (row,) = json.loads(ran.out)
    assert (row["name"], row["version"], row["state"], row["revoked"]) == ("forged", 1, "active", "")
    assert row["digest"] == site.forge.publish(site.bundle.read_bytes())
    table = run("models", "list", "--site", site.root)
    assert (table.code, "forged" in table.out) == (0, True)


def test_unknown_model_cannot_be_activated(copy: Path) -> None:
    for name, version in (("forged", 2), ("other", 1)):
        ran = run("models", "activate", name, version, "--site", copy)
        assert (ran.code, ran.err) == (2, f"appliance: version {version} of {name} is not installed\n")


def test_install_refuses_what_the_vendor_did_not_sign_for_this_site(copy: Path, site: Enrolled, tmp_path: Path) -> None:
    """And puts nothing in place, but on record."""
    other = site.forge.bundle(forge.manifest(model=forge.ModelId("other", 1, 1)))
    (tmp_path / "other.bundle").write_bytes(other)
    site.publish(copy)
    ran = run("models", "install", "--site", copy, "--bundle", tmp_path / "other.bundle", "--grant", site.grant)
    assert (ran.code, ran.err) == (3, "appliance: The grant is for another bundle.\n")
    assert not (copy / "models" / "other").exists()
    audit = run("audit", "verify", copy, "--json")
    assert json.loads(audit.out)["size"] == 5


def test_model_that_fails_its_golden_cases_is_not_activated(copy: Path, site: Enrolled, tmp_path: Path) -> None:
    wrong = forge.golden(1).encode()
    bundle = site.forge.bundle(forge.manifest(model=forge.ModelId("forged", 2, 1)), forge.parts() | {"selftest": wrong})
    (tmp_path / "b").write_bytes(bundle)
    (tmp_path / "g").write_bytes(site.permit(bundle))
    site.publish(copy)
    assert run("models", "install", "--site", copy, "--bundle", tmp_path / "b", "--grant", tmp_path / "g").code == 0
    ran = run("models", "activate", "forged", 2, "--site", copy)
    assert ran.code == 3
    assert "golden cases" in ran.err
    states = {row["version"]: row["state"] for row in json.loads(run("models", "list", "--site", copy, "--json").out)}
    assert states == {1: "active", 2: ""}


def test_bundle_verify_has_a_line_for_each_file(site: Enrolled, copy: Path, tmp_path: Path) -> None:
    """Good files and bad ones of every kind at once; exit 3, as one is not good."""
    stranger, data = Forge(), site.bundle.read_bytes()
    past = datetime(2020, 1, 1, tzinfo=UTC)
    other = site.forge.bundle(forge.manifest(model=forge.ModelId("other", 1, 1)))
    elsewhere = RecipientKey.of(bytes(32)).recipient
    terms = site.forge.terms(data, recipient=elsewhere.digest, not_before=past, not_after=past + timedelta(days=9999))
    files = {
        "tampered.bundle": (flipped(data, len(data) * 8 - 1), "corrupt_payload"),
        "cut.bundle": (data[:100], "malformed"),
        "stranger.bundle": (stranger.bundle(), "untrusted_signature"),
        "ungranted.bundle": (other, "ok"),
        "expired.grant": (site.permit(data, not_before=past, not_after=past, grace_days=0), "not_admitted"),
        "elsewhere.grant": (
            forge.grant.issue(terms, site.forge.content_key, elsewhere, [site.forge.licensing]),
            "wrong_key",
        ),
        "stranger.grant": (forge.grant.issue(terms, bytes(32), elsewhere, [stranger.licensing]), "untrusted_signature"),
        "junk.grant": (b"junk", "malformed"),
        "empty": (b"", "malformed"),
    }
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content)
    site.publish(copy)
    paths = [site.bundle, site.grant, *(tmp_path / name for name in files)]
    ran = run("bundle", "verify", "--site", copy, "--json", *paths)
    verdicts = json.loads(ran.out)
    assert ran.code == 3
    assert [verdict["code"] for verdict in verdicts] == ["ok", "ok", *(code for _, code in files.values())]
    assert [verdict["file"] for verdict in verdicts] == [str(path) for path in paths]
    assert all(verdict["good"] == (verdict["code"] == "ok") for verdict in verdicts)
    assert "every part" in verdicts[0]["detail"]
    assert "no grant here to decrypt" in verdicts[5]["detail"]
    lines = run("bundle", "verify", "--site", copy, *paths).out.splitlines()
    assert [line[:4] for line in lines] == ["good" if verdict["good"] else "BAD " for verdict in verdicts]


def test_good_files_alone_are_exit_zero(site: Enrolled) -> None:
    ran = run("bundle", "verify", "--site", site.root, site.bundle, site.grant)
    assert (ran.code, ran.err, len(ran.out.splitlines())) == (0, "", 2)


def test_bundle_inspect_shows_what_was_signed_and_only_that(site: Enrolled, tmp_path: Path) -> None:
    shown = json.loads(run("bundle", "inspect", "--site", site.root, site.bundle).out)
    assert shown["digest"] == site.forge.publish(site.bundle.read_bytes())
    assert shown["vendor"] == "forge"
    assert shown["model"] == {"id": "forged", "version": 1, "min_supported_version": 1}
    (tmp_path / "stranger").write_bytes(Forge().bundle())
    ran = run("bundle", "inspect", "--site", site.root, tmp_path / "stranger")
    assert (ran.code, ran.out) == (3, "")


def test_audit_verify_reads_the_log_of_a_site_or_of_a_folder(site: Enrolled) -> None:
    found = json.loads(run("audit", "verify", site.root, "--json").out)
    assert (found["verified"], found["size"]) == (True, 3)
    text = run("audit", "verify", site.root / "audit", "--key", site.root / "audit" / "log.vkey")
    assert (text.code, f"root {found['root']}\n" in text.out) == (0, True)


def test_audit_verify_holds_a_log_to_what_was_noted_earlier(site: Enrolled) -> None:
    root = json.loads(run("audit", "verify", site.root, "--json").out)["root"]
    assert run("audit", "verify", site.root, "--expect-size", 3).code == 0
    assert run("audit", "verify", site.root, "--expect-size", 3, "--expect-root", root).code == 0
    assert run("audit", "verify", site.root, "--expect-size", 0).code == 0
    for wrong in (
        ("--expect-size", 4),
        ("--expect-size", 3, "--expect-root", "00" * 32),
        ("--expect-size", 1, "--expect-root", root),
    ):
        ran = run("audit", "verify", site.root, *wrong)
        assert (ran.code, ran.out) == (4, "")
        assert "does not continue" in ran.err
    assert run("audit", "verify", site.root, "--expect-root", root).code == 2


def test_damaged_log_is_exit_four(copy: Path) -> None:
    segment = next(
        path for path in sorted((copy / "audit").iterdir()) if path.name != "log.vkey" and path.stat().st_size > 500
    )
    data = bytearray(segment.read_bytes())
    data[data.index(b"model.install")] ^= 1
    segment.write_bytes(data)
    ran = run("audit", "verify", copy)
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.splitlines()[-1].startswith("appliance: The audit log is damaged")


@pytest.mark.parametrize("data", [b"junk", b"\xff\xfe"])
def test_log_without_its_key_is_exit_four(copy: Path, data: bytes) -> None:
    (copy / "audit" / "log.vkey").write_bytes(data)
    assert run("audit", "verify", copy).code == 4
    ran = run("check", "--site", copy)
    assert ran.code == 2
    assert "PROBLEM  audit log: " in ran.out


def test_check_of_a_site_in_order_is_all_good(site: Enrolled) -> None:
    ran = run("check", "--site", site.root)
    assert (ran.code, ran.err) == (0, "")
    assert all(line.startswith("ok ") for line in ran.out.splitlines())
    found = json.loads(run("check", "--site", site.root, "--json").out)
    assert {"configuration", "keys", "audit log", "trust", "providers", "disk"} <= {finding["what"] for finding in found}
    assert all(finding["good"] for finding in found)


def test_check_says_everything_that_is_wrong(copy: Path) -> None:
    """No policy, no grant, a certificate that is not one, another passphrase: each its own line, exit 2."""
    (copy / "tls" / "server.crt").write_text("not a certificate")
    (copy / "models" / "forged" / "1" / "model.grant").unlink()
    assert problems(copy) == {"server certificate", "forged 1"}
    next(copy.glob("trust/*/*.policy.json")).unlink()
    assert problems(copy) == {"server certificate", "trust"}
    (copy / "secrets" / "passphrase").write_text("a passphrase of somebody else")
    assert problems(copy) == {"keys", "audit log", "trust", "server certificate", "models"}


def test_bundle_that_is_gone_hides_nothing_else(copy: Path) -> None:
    shutil.rmtree(copy / "models" / "forged")
    assert problems(copy) == {"forged 1"}
    (row,) = json.loads(run("models", "list", "--site", copy, "--json").out)
    assert (row["state"], row["granted_until"]) == ("active", "version 1 of forged is not installed")
    copy.chmod(0o755)
    assert problems(copy) == {"forged 1", "site directory"}


def problems(site: Path) -> set[str]:
    ran = run("check", "--site", site)
    assert ran.code == 2
    return {line.split("  ")[1].split(":")[0] for line in ran.out.splitlines() if line.startswith("PROBLEM")}


def test_wrong_passphrase_is_exit_two_and_one_sentence(copy: Path) -> None:
    (copy / "secrets" / "passphrase").write_text("a passphrase of somebody else")
    ran = run("enroll", "--site", copy)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "cannot be opened" in ran.err


def test_three_problems_of_a_configuration_are_three_lines(copy: Path) -> None:
    with (copy / "appliance.toml").open("a") as file:
        file.write("[limits]\nqueue_rows_max = -5\nqueue_rows_min = 1\n[engine]\nworkers = 65\n")
    for command in (("models", "list", "--site", copy), ("serve", "--config", copy / "appliance.toml")):
        ran = run(*command)
        assert (ran.code, ran.out) == (2, "")
        assert sorted(line.split(" ")[1] for line in ran.err.splitlines()) == [
            "engine.workers", "limits.queue_rows_max", "limits.queue_rows_min",
        ]  # fmt: skip
    ran = run("check", "--site", copy)
    assert (ran.code, ran.out.count("PROBLEM  configuration")) == (2, 3)


def test_serve_without_an_active_model_is_the_operators_problem(enroll: Callable[[Path], Enrolled], tmp_path: Path) -> None:
    """Checked by ``check``, which does not start anything."""
    ran = run("check", "--site", enroll(tmp_path).root)
    assert ran.code == 2
    assert "none is active" in ran.out


def test_log_line_that_cannot_be_written_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Or whoever reads the log could stop the appliance by reading no more."""
    lines, error = serve._JsonLines(), OSError("no space left")
    with mock.patch.object(serve, "_write", side_effect=error):
        lines.handle(logging.makeLogRecord({"msg": "a line"}))
    assert "no space left" in capsys.readouterr().err


def test_predict_without_an_appliance_is_exit_five(site: Enrolled, tmp_path: Path) -> None:
    from appliance.cli.authority import Authority

    Authority().client(tmp_path)
    (tmp_path / "x.png").write_bytes(forge.png(forge.image(1)))
    ran = run(
        "predict", "--address", "127.0.0.1:1", "--ca", tmp_path / "ca.crt", "--certificate", tmp_path / "client.crt",
        "--key", tmp_path / "client.key", "--model", "forged", "--timeout", "5", tmp_path / "x.png",
    )  # fmt: skip
    assert (ran.code, ran.out) == (5, "")
    assert ran.err.startswith("appliance: ")
