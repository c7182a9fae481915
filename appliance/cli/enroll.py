"""``appliance enroll``"""

from datetime import UTC, datetime
from pathlib import Path

import click

from appliance import wiring
from appliance.bundle import enrolment
from appliance.canonical import format_time
from appliance.cli.options import SITE, read_site
from appliance.keys import APPLIANCE_SEED


@click.command("enroll")
@SITE
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: enrolment.json in the site directory."
)
def command(site: Path, out: Path | None) -> None:
    """Write the enrolment request to send to the vendor, and print its fingerprint."""
    settings = read_site(site)
    seed = wiring.key_provider(settings).get(APPLIANCE_SEED)
    request = enrolment.request(seed, settings.site_name, format_time(datetime.now(UTC)))
    out = out or site / "enrolment.json"
    out.write_bytes(request)
    click.echo(f"Wrote {out}. Send it to the vendor, and read this fingerprint to them over the telephone:")
    click.echo(enrolment.read(request).fingerprint)
