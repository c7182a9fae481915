"""``appliance audit send``: the log to a hospital's collector, as syslog over TLS."""

from pathlib import Path
from time import sleep

import click

from appliance.audit import syslog
from appliance.audit.syslog import Cursor, Receiver
from appliance.cli import records
from appliance.cli.options import FILE
from appliance.errors import FeedFailed

AGAIN_S_MIN, AGAIN_S_MAX = 1.0, 60.0


@click.command("send")
@records.LOG
@click.option("--to", "address", required=True, help="HOST:PORT of the receiver; syslog over TLS usually has port 6514.")
@click.option("--ca", type=FILE, required=True, help="The CA that signed the receiver's certificate, PEM.")
@click.option("--certificate", type=FILE, help="Our certificate for the receiver, PEM.")
@click.option("--key", type=FILE, help="Its key, PEM.")
@click.option(
    "--cursor",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="A file that keeps the index of the next record; made where it is not there.",
)
@click.option(
    "--follow", is_flag=True, help="Go on with what comes, and come back where the receiver fails. Ends with Ctrl-C."
)
def send(
    directory: Path, address: str, ca: Path, certificate: Path | None, key: Path | None, cursor: Path, follow: bool
) -> None:
    """Send a site's log, or a copy's, as syslog (RFC 5424) over TLS (RFC 5425). Exit 5 where the receiver does not take it.

    Nothing is lost where it fails: the next time goes on from the cursor, and some records may come twice.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise click.UsageError("--to is HOST:PORT.")
    receiver, place = Receiver.of(host, int(port), ca, certificate, key), Cursor(cursor)
    folder = records.files_of(directory)
    wait_s = AGAIN_S_MIN
    while True:
        began = place.next
        try:
            syslog.send(folder, receiver, place, follow=follow)
        except FeedFailed as error:
            if not follow:
                raise
            wait_s = AGAIN_S_MIN if place.next > began else min(2 * wait_s, AGAIN_S_MAX)
            click.echo(f"appliance: {error} Next record {place.next}; trying again in {wait_s:.0f} s.", err=True)
            sleep(wait_s)
        else:
            click.echo(f"All has arrived; the next record is {place.next}.")
            return
