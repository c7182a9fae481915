"""``appliance audit accept-gap``, ``prune``, ``new-epoch``, ``erase-epoch``, ``erase``: acts on a stopped appliance's log.

The acts are imported when they are used: the auditor's commands beside them need no runtime.
"""

import asyncio
from datetime import datetime
from pathlib import Path

import click

from appliance.cli.options import REASON, SITE, read_site


@click.command("accept-gap")
@SITE
@REASON
def accept_gap(site: Path, reason: str) -> None:
    """Go on after damage: what is whole stays, what is not is put aside, and the log says so. The appliance is stopped."""
    from appliance import upkeep

    gap, aside = asyncio.run(upkeep.accept_gap(read_site(site), reason))
    click.echo(f"The log begins at record {gap.first} and goes on with record {gap.size}; what is between is whole.")
    click.echo(
        f"{len(gap.segments)} damaged files are kept in {aside.name}. Whoever has noted a later size will see the gap."
    )


@click.command("prune")
@click.option("--before", type=click.DateTime(["%Y-%m-%d"]), required=True, help="Delete what is older than this day, UTC.")
@SITE
@REASON
def prune(before: datetime, site: Path, reason: str) -> None:
    """Delete the files whose records are all older. What is left, and every receipt, stays provable.

    The appliance is stopped. What was noted of the log earlier cannot be compared any more: note its size and root anew.
    """
    from appliance import upkeep

    first, count = asyncio.run(upkeep.prune(read_site(site), before, reason))
    click.echo(
        f"{count} files are deleted; the log begins at record {first}." if count else "No file is old enough as a whole."
    )


@click.command("new-epoch")
@SITE
@REASON
def new_epoch(site: Path, reason: str) -> None:
    """Draw a new key for the pseudonyms of images, in use from the next start on. The appliance is stopped."""
    from appliance import upkeep

    epoch = asyncio.run(upkeep.begin_epoch(read_site(site), reason))
    click.echo(f"Epoch {epoch} begins when the appliance starts.")


@click.command("erase-epoch")
@click.argument("epoch", type=click.IntRange(1))
@SITE
@REASON
def erase_epoch(epoch: int, site: Path, reason: str) -> None:
    """Erase the key of an EPOCH that is over: its records stay, with every proof, and nobody can match them to images."""
    from appliance import upkeep

    asyncio.run(upkeep.erase_epoch(read_site(site), epoch, reason))
    click.echo(f"The key of epoch {epoch} is erased. Erase its backups too.")


@click.command("erase")
@click.argument("index", type=click.IntRange(0))
@click.option("--row", type=click.IntRange(0), help="Only this image of the call, counted from 0. Default: all of them.")
@SITE
@REASON
def erase(index: int, row: int | None, site: Path, reason: str) -> None:
    """Erase what matches record INDEX to its images: it stays, with every proof, and nobody can say whose it was.

    The appliance is stopped.
    """
    from appliance import upkeep

    count = asyncio.run(upkeep.erase(read_site(site), index, row, reason))
    click.echo(f"The keys of {count} images of record {index} are erased. Erase their backups too.")


COMMANDS: tuple[click.Command, ...] = (accept_gap, prune, new_epoch, erase_epoch, erase)
