"""Options that several commands share."""

from pathlib import Path

import click

from appliance import config
from appliance.config import Config

SITE = click.option(
    "--site",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=".",
    show_default="this folder",
    help="The site directory.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for scripts.")
REASON = click.option("--reason", required=True, help="Why; it is recorded, so it must not name a patient.")
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def read_site(site: Path) -> Config:
    """The configuration of a site directory, for commands that do not serve. Raises ConfigError."""
    return config.read(site / "appliance.toml", to_serve=False)
