"""``appliance check``: a doctor that says in sentences what is wrong with a site, and what to do."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from cryptography import x509

from appliance import config, memory, wiring
from appliance.alarms import NOTICE, alarms
from appliance.audit.checkpoint import VerifierKey
from appliance.audit.verify import KEY_FILE
from appliance.cli import echo_json
from appliance.cli.options import JSON, SITE
from appliance.config import Config
from appliance.engine.session import available_providers
from appliance.errors import ApplianceError, AuditLogError, ConfigError
from appliance.keys import APPLIANCE_SEED, AUDIT_KEY, newest_epoch, pseudonym_key

FREE_BYTES_MIN = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``good`` false means the appliance would not serve as it should."""

    what: str
    good: bool
    sentence: str


@click.command("check")
@SITE
@JSON
def command(site: Path, as_json: bool) -> None:
    """Say what is wrong with a site, and what to do. Exit 2 if anything is."""
    findings = list(examine(site, datetime.now(UTC)))
    if as_json:
        echo_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{'ok     ' if finding.good else 'PROBLEM'}  {finding.what}: {finding.sentence}")
    if not all(finding.good for finding in findings):
        raise SystemExit(2)


def examine(site: Path, now: datetime) -> Iterator[Finding]:
    """Everything that can be looked at without starting. Stops after the configuration if that cannot be read."""
    try:
        settings = config.read(site / "appliance.toml")
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("configuration", False, problem)
        return
    yield Finding("configuration", True, "appliance.toml is valid")
    for what, look in (
        ("site directory", _directory),
        ("keys", _keys),
        ("audit log", _audit),
        ("trust", _trust),
        ("swap", _swap),
        ("providers", _providers),
        ("disk", _disk),
    ):
        yield _finding(what, look, settings)
    yield from _certificates(settings, now)
    yield from _models(settings, now)


def _finding(what: str, look: Callable[[Config], str], settings: Config) -> Finding:
    try:
        return Finding(what, True, look(settings))
    except ApplianceError as error:
        return Finding(what, False, str(error))


def _directory(settings: Config) -> str:
    if settings.site.stat().st_mode & 0o077:
        raise ConfigError("others than its owner can enter it; chmod 700 it")
    return "its owner alone can enter it"


def _keys(settings: Config) -> str:
    provider = wiring.key_provider(settings)
    for purpose in (APPLIANCE_SEED, AUDIT_KEY, pseudonym_key(newest_epoch(provider))):
        provider.get(purpose)
    beside = settings.site in settings.passphrase.path.parents
    return "the passphrase opens every key" + (", and lies beside them: see docs/keys.md" if beside else "")


def _audit(settings: Config) -> str:
    verifier = wiring.log_key(wiring.key_provider(settings)).verifier
    try:
        kept = VerifierKey.decode((settings.audit / KEY_FILE).read_text())
    except (OSError, ValueError):
        raise AuditLogError(f"audit/{KEY_FILE} is missing, or is not a verifier key") from None
    if kept.encode() != verifier.encode():
        raise AuditLogError(f"audit/{KEY_FILE} is not of this site's audit key")
    return f"written as {verifier.name}"


def _trust(settings: Config) -> str:
    site, state, _ = wiring.remembered(settings)
    policies = site.policies(state)
    if not policies:
        raise ConfigError("no vendor is trusted: appliance trust update, with the vendor's trust repository")
    return f"{', '.join(policy.vendor for policy in policies)}, as verified"


def _swap(settings: Config) -> str:
    if memory.swap_can_see_us():
        raise ConfigError(
            "this machine swaps, and a process with this one's limits cannot lock its memory: turn swap off, or let the "
            "appliance's unit (and this shell) have LimitMEMLOCK=infinity"
        )
    return "decrypted models cannot reach it"


def _providers(settings: Config) -> str:
    missing = [name for name in settings.engine.providers if name not in available_providers()]
    if missing:
        raise ConfigError(f"engine.providers: {', '.join(missing)} is not on this machine; install the driver or change it")
    return f"{', '.join(settings.engine.providers)}; telemetry is off"


def _disk(settings: Config) -> str:
    free = shutil.disk_usage(settings.audit).free
    if free < FREE_BYTES_MIN:
        raise ConfigError(f"{free >> 20} MiB are free for the audit log; it stops answering when the disk is full")
    return f"{free >> 30} GiB free"


def _certificates(settings: Config, now: datetime) -> Iterator[Finding]:
    for what, path in (("server certificate", settings.tls.certificate), ("client CA", settings.tls.client_ca)):
        try:
            ends = min(c.not_valid_after_utc for c in x509.load_pem_x509_certificates(path.read_bytes()))
        except ValueError:
            yield Finding(what, False, "it is not a PEM certificate")
            continue
        yield _expiry(what, ends, now)


def _models(settings: Config, now: datetime) -> Iterator[Finding]:
    try:
        site, state, _ = wiring.remembered(settings)
    except ApplianceError as error:
        yield Finding("models", False, str(error))
        return
    active = {f"{name} {model.serving[0].version}" for name, model in state.models.items() if model.serving}
    if not active:
        yield Finding("models", False, "none is active: appliance models install, then appliance models activate")
    on = alarms(site, state, now, settings.engine.versions_max)
    found = [alarm for alarm in on if alarm.kind != "trust_damaged"]  # which _trust has said
    for subject in sorted(active - {alarm.subject for alarm in found}):
        yield Finding(subject, True, "is active")
    for alarm in found:
        yield Finding(alarm.subject, not alarm.urgent, alarm.sentence)


def _expiry(what: str, ends: datetime, now: datetime) -> Finding:
    if ends <= now:
        return Finding(what, False, f"it ended on {ends:%Y-%m-%d}; replace it")
    soon = "; replace it soon" if ends - now < NOTICE else ""
    return Finding(what, True, f"valid until {ends:%Y-%m-%d}{soon}")
