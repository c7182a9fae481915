"""``appliance bundle``: look at bundles and grants without using them."""

from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from appliance import memory, wiring
from appliance.bundle import container, grant, opening
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.opening import Genuine
from appliance.canonical import format_time
from appliance.cli import echo_json
from appliance.cli.options import FILE, JSON, SITE, read_site
from appliance.errors import BundleError, NotAdmitted
from appliance.gate import Gate


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
    """Check bundles and grants as installing would. A line for each; exit 3 if one is not good.

    A bundle is decrypted too where a grant for it is among FILES or installed at the site.
    """
    memory.prepare_process()
    place, state, seed = wiring.remembered(read_site(site))
    check = _Check(Gate(state, place.policies(state), RecipientKey.of(seed), datetime.now(UTC)))
    check.grants = [path.read_bytes() for path in files if not _is_bundle(path)]
    for installed in place.installed():
        with suppress(NotAdmitted):
            check.grants.append(installed.permit())
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
    """Print a bundle's manifest as JSON. Its signature is checked first."""
    place, state, _ = wiring.remembered(read_site(site))
    genuine = opening.parse(file.read_bytes()).verify(place.policies(state))
    echo_json({"digest": genuine.digest, "vendor": genuine.policy.vendor} | asdict(genuine.manifest))


class _Check:
    """What installing asks, of each file on its own."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.grants: list[bytes] = []

    def file(self, path: Path) -> Verdict:
        data = path.read_bytes()
        try:
            detail = self._bundle(data) if _is_bundle(path) else self._grant(data)
        except BundleError as error:
            return Verdict(str(path), False, error.code, str(error))
        return Verdict(str(path), True, "ok", detail)

    def _bundle(self, data: bytes) -> str:
        genuine = self._gate.verify(data)
        model = genuine.manifest.model
        permit = self._grant_for(genuine)
        if permit is None:
            self._gate.require(model.id, genuine.policy.vendor)
            genuine.require_published()
            genuine.check_parts()
            return f"{model.id} version {model.version}, signature and digests; there is no grant here to decrypt it"
        self._gate.prove(genuine, permit)
        return f"{model.id} version {model.version}, signature, grant, digests and every part"

    def _grant_for(self, genuine: Genuine) -> bytes | None:
        for data in self.grants:
            try:
                if grant.read(data, [genuine.policy]).terms.manifest_sha256 == genuine.digest:
                    return data
            except BundleError:
                continue  # its own line says so
        return None

    def _grant(self, data: bytes) -> str:
        given = grant.read(data, self._gate.policies)
        self._gate.require(given.terms.model, given.vendor)
        given.terms.require_in_force(datetime.now(UTC))
        given.unwrap(self._gate.key)
        until = format_time(given.terms.not_after)
        return f"grant for {given.terms.model} version {given.terms.version} until {until}"


def _is_bundle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == container.MAGIC[:1]
