"""``appliance state``: what a site remembers."""

from pathlib import Path

import click

from appliance.cli.operator import operator
from appliance.cli.options import REASON, SITE, read_site


@click.group("state")
def command() -> None:
    """Let a site go on after a restore or a wrong clock."""


@command.command("accept")
@SITE
@REASON
def accept(site: Path, reason: str) -> None:
    """Go on from here. For use after a restore from a backup, or after the clock was wrong.

    The clock's time becomes the latest time seen. Versions that were seen stay seen: nothing older can be activated by this.
    """
    with operator(read_site(site)) as acts:
        acts.accept_state(reason)
    click.echo("Accepted. The site goes on from here, and the audit log says so.")
