"""``appliance models``: what is installed at a site, and what answers."""

import re
import unicodedata
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from appliance import wiring
from appliance.bundle import grant as grants
from appliance.bundle.manifest import DISTANCE_E6_MAX, E6, VERSION_MAX
from appliance.cli import echo_json
from appliance.cli.operator import operator
from appliance.cli.options import FILE, JSON, REASON, SITE, read_site
from appliance.errors import BundleError, ConfigError
from appliance.gate import answering
from appliance.override import AS_SIGNED, Override
from appliance.server.administration import override_of
from appliance.v1 import administration_pb2 as pb

VERSION = click.IntRange(1, VERSION_MAX)
_HIDDEN = {"Cc", "Cf", "Zl", "Zp"}  # controls, format controls, and separators of lines that are none of Markdown's


def _millionths(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A number with at most six decimals as a whole number of millionths: a threshold is what was typed, exactly."""
    if value is None:
        return None
    if re.fullmatch(r"-?[0-9]{1,10}(\.[0-9]{1,6})?", value):
        scaled = int(Decimal(value) * E6)
        if abs(scaled) <= DISTANCE_E6_MAX:
            return scaled
    raise click.BadParameter("a threshold is a number with at most six decimals", context, parameter)


@click.group("models")
def command() -> None:
    """Install bundles and choose which versions answer. The appliance may be running or stopped."""


@command.command("install")
@SITE
@click.option("--bundle", type=FILE, required=True, help="The bundle's file.")
@click.option("--grant", type=FILE, required=True, help="This appliance's grant for it.")
def install(site: Path, bundle: Path, grant: Path) -> None:
    """Check a bundle and its grant, and put them into the site. Nothing answers by it yet."""
    with operator(read_site(site)) as acts:
        found = acts.install_model(bundle, grant.read_bytes())
    click.echo(f"Installed {found.name} version {found.version}, digest {found.digest}.")
    click.echo(f"To let it answer: appliance models activate {found.name} {found.version} --site {site}")


@command.command("renew")
@SITE
@click.option("--grant", type=FILE, required=True, help="Another grant for a bundle that is installed.")
def renew(site: Path, grant: Path) -> None:
    """Put another grant in the place of an installed bundle's. The bundle itself is not needed again."""
    with operator(read_site(site)) as acts:
        found = acts.renew_grant(grant.read_bytes())
    click.echo(f"{found.name} version {found.version} is granted until {found.not_after}.")


@command.command("activate")
@SITE
@click.argument("name")
@click.argument("version", type=VERSION)
def activate(site: Path, name: str, version: int) -> None:
    """Let an installed version answer. It is loaded, replays its golden cases, and takes the place of the one before."""
    with operator(read_site(site)) as acts:
        digest = acts.activate_model(name, version)
    click.echo(f"{name} version {version} is active, digest {digest}.")


@command.command("rollback")
@SITE
@click.argument("name")
@click.argument("version", type=VERSION)
@REASON
def rollback(site: Path, name: str, version: int, reason: str) -> None:
    """Let an older version answer again. It may be as old as its vendor supports."""
    with operator(read_site(site)) as acts:
        digest = acts.roll_back_model(name, version, reason)
    click.echo(f"{name} is back at version {version}, digest {digest}.")


@command.command("deactivate")
@SITE
@click.argument("name")
@REASON
def deactivate(site: Path, name: str, reason: str) -> None:
    """Let a model answer nobody any more, in any version."""
    with operator(read_site(site)) as acts:
        acts.deactivate_model(name, reason)
    click.echo(f"{name} is not active any more.")


@command.command("threshold")
@SITE
@click.argument("name")
@click.argument("version", type=VERSION)
@click.option(
    "--accept-at-least",
    callback=_millionths,
    metavar="NUMBER",
    help="Accept an answer whose score is at least this; others abstain.",
)
@click.option(
    "--reject-above", callback=_millionths, metavar="NUMBER", help="Take an input for unknown whose distance is above this."
)
@click.option("--as-signed", is_flag=True, help="Decide as the vendor has signed again.")
@REASON
def threshold(
    site: Path, name: str, version: int, accept_at_least: int | None, reject_above: int | None, as_signed: bool, reason: str
) -> None:
    """Let a version that answers decide by another threshold than its vendor has signed.

    A threshold that is not named stays as it is. All of them are as signed again after --as-signed, and when a version is
    activated.
    """
    wanted = pb.Override(accept_at_least_e6=accept_at_least, reject_above_e6=reject_above)
    if as_signed == bool(wanted.ListFields()):
        raise click.UsageError("Give --accept-at-least, --reject-above or both; or --as-signed alone.")
    with operator(read_site(site)) as acts:
        found = acts.set_threshold(name, version, None if as_signed else wanted, reason)
    click.echo(f"{name} version {version} {override_of(found.override)}.")


@command.command("remove")
@SITE
@click.argument("name")
@click.argument("version", type=VERSION)
def remove(site: Path, name: str, version: int) -> None:
    """Delete the files of a version that does not answer."""
    with operator(read_site(site)) as acts:
        acts.remove_model(name, version)
    click.echo(f"Removed {name} version {version}.")


@command.command("card")
@SITE
@JSON
@click.argument("name")
@click.argument("version", type=VERSION, required=False)
def card(site: Path, as_json: bool, name: str, version: int | None) -> None:
    """Print a model's card, in Markdown: what it was made for, and how it did. Without a VERSION, of the active one.

    It is read out of the bundle, whether that answers yet or not, and that somebody read it is on record.
    """
    with operator(read_site(site)) as acts:
        found = acts.describe_model(name, version or 0)
    if as_json:
        echo_json({"name": found.name, "version": found.version, "digest": found.digest, "card": found.card})
        return
    click.echo(f"{found.name} version {found.version}, digest {found.digest}", err=True)
    # A vendor's words, on a terminal that control characters could make say anything, and in an order that those for
    # bidirectional text (Cf) could turn round. What is lost with them is a ligature or a hyphen, and --json has it.
    click.echo("".join(c for c in found.card if c in "\n\t" or unicodedata.category(c) not in _HIDDEN))


@dataclass(frozen=True, slots=True)
class Row:
    """One version that is installed, or should be. ``state`` is ``active``, ``kept`` (answers who asks for this version), or
    empty, as of what is activated: ``check`` says what is wrong with it. ``override`` are the thresholds that are not as
    signed, in millionths.
    """

    name: str
    version: int
    state: str
    digest: str
    revoked: str
    granted_until: str
    override: dict[str, int]


@command.command("list")
@SITE
@JSON
def list_models(site: Path, as_json: bool) -> None:
    """Show what is installed, answers, or is revoked. And until when it is granted."""
    rows = _rows(site)
    if as_json:
        echo_json([asdict(row) for row in rows])
        return
    table = Table("model", "version", "state", "digest", "revoked", "granted until", "thresholds")
    for row in rows:
        decides = str(Override(**row.override)) if row.override else "as signed" if row.state else ""
        table.add_row(row.name, str(row.version), row.state, row.digest[:16], row.revoked, row.granted_until, decides)
    Console().print(table)


def _rows(folder: Path) -> list[Row]:
    settings = read_site(folder)
    site, state, _ = wiring.remembered(settings)
    policies, versions_max = {policy.vendor: policy for policy in site.policies(state)}, settings.engine.versions_max
    serving = {name: answering(site, state, name, versions_max) for name in state.models}
    installed = {(found.name, found.version) for found in site.installed()}
    answer = {(name, v.version): (i, v.override) for name, those in serving.items() for i, v in enumerate(those)}
    rows = []
    for name, version in sorted(installed | answer.keys()):
        place, decides = answer.get((name, version), (None, AS_SIGNED))
        answers, override = "" if place is None else "kept" if place else "active", decides.encode()
        try:
            given = grants.read(site.find(name, version).permit(), list(policies.values()))
        except (BundleError, ConfigError) as error:
            rows.append(Row(name, version, answers, "", "", str(error), override))
            continue
        digest, until = given.terms.manifest_sha256, f"{given.terms.not_after:%Y-%m-%d}"
        listing = policies[given.vendor].bundles.get(digest)
        rows.append(Row(name, version, answers, digest, (listing and listing.revoked) or "", until, override))
    return rows
