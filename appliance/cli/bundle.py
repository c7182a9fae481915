"""``appliance bundle``: look at bundles and grants without using them."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from appliance import wiring
from appliance.bundle import container, grant, opening
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.opening import Genuine, TrustedKeys
from appliance.canonical import format_time
from appliance.cli import echo_json
from appliance.cli.options import FILE, JSON, SITE, read_site
from appliance.errors import BundleError
from appliance.site import Site


@click.group("bundle")
def command() -> None:
    """Check and show bundles and grants."""


@dataclass(frozen=True, slots=True)
class Verdict:
    file: str
    good: bool
    code: str
    detail: str


@command.command("verify")
@SITE
@click.argument("files", type=FILE, nargs=-1, required=True)
@JSON
def verify(site: Path, files: tuple[Path, ...], as_json: bool) -> None:
    """Check bundles and grants against what this site trusts: a line for each; exit 3 if one is not good.

    A bundle is decrypted too where a grant for it is among FILES or installed at the site.
    """
    settings = read_site(site)
    place = Site(settings.site)
    check = _Check(place.trusted(), wiring.recipient_key(wiring.key_provider(settings)), datetime.now(UTC))
    check.grants = [path.read_bytes() for path in files if not _is_bundle(path)]
    check.grants += [installed.grant.read_bytes() for installed in place.installed()]
    verdicts = [check.file(path) for path in files]
    if as_json:
        echo_json([asdict(verdict) for verdict in verdicts])
    else:
        for verdict in verdicts:
            click.echo(f"{'good' if verdict.good else 'BAD '}  {verdict.file}  {verdict.code}: {verdict.detail}")
    if not all(verdict.good for verdict in verdicts):
        raise SystemExit(3)


@command.command("inspect")
@SITE
@click.argument("file", type=FILE)
def inspect(site: Path, file: Path) -> None:
    """Print the manifest of a bundle, as JSON, once its signature has been checked."""
    genuine = opening.parse(file.read_bytes()).verify(Site(read_site(site).site).trusted())
    echo_json({"digest": genuine.digest} | asdict(genuine.manifest))


class _Check:
    def __init__(self, trusted: TrustedKeys, key: RecipientKey, now: datetime) -> None:
        self._trusted, self._key, self._now = trusted, key, now
        self.grants: list[bytes] = []

    def file(self, path: Path) -> Verdict:
        data = path.read_bytes()
        try:
            detail = self._bundle(data) if _is_bundle(path) else self._grant(data)
        except BundleError as error:
            return Verdict(str(path), False, error.code, str(error))
        return Verdict(str(path), True, "ok", detail)

    def _bundle(self, data: bytes) -> str:
        genuine = opening.parse(data).verify(self._trusted)
        model = genuine.manifest.model
        permit = self._grant_for(genuine)
        if permit is None:
            genuine.check_parts()
            return f"{model.id} version {model.version}, signature and digests; there is no grant here to decrypt it"
        genuine.admit(permit, self._key, self._trusted, self._now).decrypt()
        return f"{model.id} version {model.version}, signature, grant, digests and every part"

    def _grant_for(self, genuine: Genuine) -> bytes | None:
        for data in self.grants:
            try:
                if grant.read(data, self._trusted.licensing).terms.manifest_sha256 == genuine.digest:
                    return data
            except BundleError:
                continue  # its own line says so
        return None

    def _grant(self, data: bytes) -> str:
        given = grant.read(data, self._trusted.licensing)
        given.terms.require_in_force(self._now)
        given.unwrap(self._key)
        until = format_time(given.terms.not_after)
        return f"grant for {given.terms.model} version {given.terms.version} until {until}"


def _is_bundle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == container.MAGIC[:1]
