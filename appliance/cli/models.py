"""``appliance models``: what is installed at a site, and what is active."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from appliance import wiring
from appliance.bundle import opening
from appliance.bundle.opening import Opened
from appliance.cli import echo_json
from appliance.cli.options import FILE, JSON, SITE, read_site
from appliance.config import Config
from appliance.keys import KeyProvider
from appliance.site import Site


@click.group("models")
def command() -> None:
    """Install bundles and choose the version that serves."""


@command.command("install")
@SITE
@click.option("--bundle", type=FILE, required=True)
@click.option("--grant", type=FILE, required=True)
def install(site: Path, bundle: Path, grant: Path) -> None:
    """Check a bundle and its grant, and put them into the site. The appliance must be stopped."""
    settings = read_site(site)
    keys, place = wiring.key_provider(settings), Site(settings.site)
    data, permit = bundle.read_bytes(), grant.read_bytes()

    async def act() -> Opened:
        with wiring.journal(settings, keys) as journal:
            async with journal.entry("model.install") as entry:
                key = wiring.recipient_key(keys)
                genuine = opening.parse(data).verify(place.trusted())
                model = genuine.manifest.model
                entry.model = {"id": model.id, "version": model.version, "digest": genuine.digest}
                opened = genuine.admit(permit, key, place.trusted(), datetime.now(UTC)).decrypt()
                place.install(model.id, model.version, data, permit)
                return opened

    opened = asyncio.run(act())
    model = opened.manifest.model
    click.echo(f"Installed {model.id} version {model.version}, digest {opened.digest}.")
    click.echo(f"To serve it: appliance models activate {model.id} {model.version} --site {site}")


@command.command("activate")
@SITE
@click.argument("name")
@click.argument("version", type=click.IntRange(1))
def activate(site: Path, name: str, version: int) -> None:
    """Make an installed version the one that serves, from the next start on. The appliance must be stopped."""
    settings = read_site(site)
    asyncio.run(_activate(settings, wiring.key_provider(settings), name, version))
    click.echo(f"{name} version {version} is active.")


async def _activate(settings: Config, keys: KeyProvider, name: str, version: int) -> None:
    """Loads the model as serving would, golden cases and all, before it is made active."""
    place = Site(settings.site)
    installed = place.find(name, version)
    with wiring.journal(settings, keys) as journal:
        async with journal.entry("model.activate") as entry:
            entry.model = {"id": name, "version": version}
            model = wiring.load_installed(installed, wiring.recipient_key(keys), place.trusted(), wiring.hardware(settings))
            entry.model["digest"] = model.digest
            place.activate(name, version)


@command.command("list")
@SITE
@JSON
def list_models(site: Path, as_json: bool) -> None:
    """What is installed, and what is active."""
    place = Site(read_site(site).site)
    active = place.active()
    rows = [
        {"name": found.name, "version": found.version, "active": active.get(found.name) == found.version}
        for found in place.installed()
    ]
    if as_json:
        echo_json(rows)
        return
    table = Table("model", "version", "active")
    for row in rows:
        table.add_row(str(row["name"]), str(row["version"]), "yes" if row["active"] else "")
    Console().print(table)
