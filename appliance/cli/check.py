"""``appliance check``: a doctor that says in sentences what is wrong with a site, and what to do."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from cryptography import x509

from appliance import config, wiring
from appliance.audit.checkpoint import VerifierKey
from appliance.audit.verify import KEY_FILE
from appliance.bundle import grant
from appliance.cli import echo_json
from appliance.cli.options import JSON, SITE
from appliance.config import Config
from appliance.engine.session import available_providers
from appliance.errors import ApplianceError, AuditLogError, ConfigError
from appliance.keys import APPLIANCE_SEED, AUDIT_KEY, PSEUDONYM_KEY
from appliance.site import Site

FREE_BYTES_MIN = 1 << 30
EXPIRY_WARNING = timedelta(days=30)


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
    """Look at a site and say what is wrong and what to do; exit 2 if anything is."""
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
        ("keys", _keys),
        ("audit log", _audit),
        ("trust", _trust),
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


def _keys(settings: Config) -> str:
    provider = wiring.key_provider(settings)
    for purpose in (APPLIANCE_SEED, AUDIT_KEY, PSEUDONYM_KEY):
        provider.get(purpose)
    return "the passphrase opens every key"


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
    trusted = Site(settings.site).trusted()
    if not trusted.exporter or not trusted.licensing:
        raise ConfigError("put the vendor's public keys into trust/exporter and trust/licensing")
    return f"{len(trusted.exporter)} exporter and {len(trusted.licensing)} licensing keys"


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
    site = Site(settings.site)
    try:
        active, trusted = site.active(), site.trusted()
        if not active:
            raise ConfigError("none is active: appliance models install, then appliance models activate")
        for name, version in active.items():
            terms = grant.read(site.find(name, version).grant.read_bytes(), trusted.licensing).terms
            yield _expiry(f"grant of {name} version {version}", terms.not_after, now)
    except (ApplianceError, OSError) as error:
        yield Finding("models", False, str(error) if isinstance(error, ApplianceError) else "a grant cannot be read")


def _expiry(what: str, ends: datetime, now: datetime) -> Finding:
    if ends <= now:
        return Finding(what, False, f"it ended on {ends:%Y-%m-%d}; replace it")
    soon = "; replace it soon" if ends - now < EXPIRY_WARNING else ""
    return Finding(what, True, f"valid until {ends:%Y-%m-%d}{soon}")
