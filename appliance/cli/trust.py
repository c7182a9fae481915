"""``appliance trust``: the vendors' trust repositories."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from appliance import trust, wiring
from appliance.canonical import format_time
from appliance.cli import echo_json
from appliance.cli.operator import operator
from appliance.cli.options import JSON, SITE, read_site
from appliance.errors import CallFailed, NewVendor


@click.group("trust")
def command() -> None:
    """Take in a vendor's word, and show what is trusted."""


@command.command("update")
@SITE
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--fingerprint", help="Of a vendor that is new here, as a person read it out; asked for if left out.")
def update(site: Path, directory: Path, fingerprint: str | None) -> None:
    """Verify the repository in DIRECTORY, and go by it from now on. Nothing older is ever taken in."""
    files = trust.read_medium(directory)
    with operator(read_site(site)) as acts:
        try:
            found = acts.update_trust(files, fingerprint or "")
        except (NewVendor, CallFailed) as error:
            is_new = isinstance(error, NewVendor) or error.reason == NewVendor.code
            if fingerprint is not None or not is_new:
                raise
            read_out = trust.root_fingerprint(trust.root_of(files))
            click.echo(f"This vendor is new here. The fingerprint of its root is\n\n    {read_out}\n")
            click.confirm("Has a person at the vendor's read out this same fingerprint?", abort=True)
            found = acts.update_trust(files, read_out)
    click.echo(f"{found.vendor} is trusted as of this repository, which is fresh until {found.expires}.")


@dataclass(frozen=True, slots=True)
class Row:
    """One vendor. Roles are versions; keys and bundles are counted."""

    vendor: str
    root: int
    targets: int
    timestamp: int
    fresh_until: str
    fresh: bool
    exporter_keys: int
    licensing_keys: int
    signatures: str
    bundles: int
    revoked_bundles: int
    revoked_keys: int


@command.command("show")
@SITE
@JSON
def show(site: Path, as_json: bool) -> None:
    """Whom this site trusts, for what, and until when."""
    rows = _rows(site, datetime.now(UTC))
    if as_json:
        echo_json([asdict(row) for row in rows])
        return
    for row in rows:
        until = f"fresh until {row.fresh_until}" if row.fresh else f"expired on {row.fresh_until}"
        click.echo(row.vendor)
        click.echo(f"  repository  root {row.root}, targets {row.targets}, timestamp {row.timestamp}; {until}")
        click.echo(
            f"  keys        {row.exporter_keys} exporter, {row.licensing_keys} licensing; they sign with {row.signatures}"
        )
        click.echo(
            f"  bundles     {row.bundles} published, {row.revoked_bundles} of them revoked; {row.revoked_keys} keys revoked"
        )
    if not rows:
        click.echo("No vendor is trusted yet.")


def _rows(folder: Path, now: datetime) -> list[Row]:
    site, state, _ = wiring.remembered(read_site(folder))
    rows = []
    for policy in site.policies(state):
        known = state.vendors[policy.vendor]
        rows.append(
            Row(
                vendor=policy.vendor,
                root=known.root,
                targets=known.targets,
                timestamp=known.timestamp,
                fresh_until=format_time(known.expires),
                fresh=now < known.expires,
                exporter_keys=len(policy.exporter.keys),
                licensing_keys=len(policy.licensing.keys),
                signatures=" and ".join(sorted(policy.exporter.required)),
                bundles=len(policy.bundles),
                revoked_bundles=sum(listing.revoked is not None for listing in policy.bundles.values()),
                revoked_keys=len(policy.revoked_keys),
            )
        )
    return rows
