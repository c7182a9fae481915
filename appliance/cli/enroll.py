"""``appliance enroll``"""

from datetime import UTC, datetime
from pathlib import Path

import click

from appliance import wiring
from appliance.bundle import enrolment
from appliance.bundle.enrolment import RecipientKey
from appliance.canonical import format_time
from appliance.cli.options import SITE, read_site
from appliance.errors import ConfigError
from appliance.keys import APPLIANCE_SEED


@click.command("enroll")
@SITE
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: enrolment.json in the site directory."
)
def command(site: Path, out: Path | None) -> None:
    """Write the enrolment request, and print its fingerprint. One that is there already is kept: send it to the vendor."""
    settings = read_site(site)
    seed = wiring.key_provider(settings).get(APPLIANCE_SEED)
    out = out or site / "enrolment.json"
    if out.exists():
        request = enrolment.read(out.read_bytes())
        if (request.recipient, request.site) != (RecipientKey.of(seed).recipient, settings.site_name):
            raise ConfigError(f"{out.name} is another appliance's, or has another site's name; move it away")
    else:
        made = enrolment.request(seed, settings.site_name, format_time(datetime.now(UTC)))
        request = enrolment.read(made)
        out.write_bytes(made)
    click.echo(f"Send {out} to the vendor, and read this fingerprint to them over the telephone:")
    click.echo(request.fingerprint)
