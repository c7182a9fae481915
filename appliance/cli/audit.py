"""``appliance audit``: the auditor's commands. Checking needs a copy of the log and a public key, and no appliance."""

from pathlib import Path
from time import perf_counter

import click
from rich.console import Console
from rich.progress import Progress

from appliance.audit.checkpoint import VerifierKey
from appliance.audit.segment import segment_paths
from appliance.audit.verify import KEY_FILE, Verified
from appliance.audit.verify import verify as verify_log
from appliance.cli import echo_json, feed, records, upkeep
from appliance.cli.options import FILE, JSON
from appliance.errors import AuditLogError


@click.group("audit")
def command() -> None:
    """Check the audit log, read it, and prove what it says."""


for made in (*records.COMMANDS, feed.send, *upkeep.COMMANDS):
    command.add_command(made)


@command.command("verify")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--key", type=FILE, help="The log's verifier key from a safe place. Default: the copy in the directory.")
@click.option("--expect-size", type=click.IntRange(0), help="A size noted earlier: the log must not be shorter.")
@click.option("--expect-root", help="The root noted with that size, in hex.")
@JSON
def verify(directory: Path, key: Path | None, expect_size: int | None, expect_root: str | None, as_json: bool) -> None:
    """Check every record, tree and signature of a log. DIRECTORY is the log's, or the site's; exit 4 if one is wrong."""
    if expect_root is not None and expect_size is None:
        raise click.UsageError("--expect-root needs --expect-size.")
    folder = directory / "audit" if (directory / "audit").is_dir() else directory
    try:
        verifier = VerifierKey.decode((key or folder / KEY_FILE).read_text())
    except (OSError, ValueError):
        raise AuditLogError(f"There is no verifier key {KEY_FILE} in the directory; give one with --key.") from None
    started = perf_counter()
    expected = None if expect_size is None else (expect_size, expect_root and expect_root.lower())
    with Progress(console=Console(stderr=True), disable=as_json, transient=True) as progress:
        task = progress.add_task("Verifying", total=len(segment_paths(folder)))
        try:
            found = verify_log(folder, verifier, expected, lambda: progress.advance(task))
        except AuditLogError as error:
            if as_json:
                echo_json({"verified": False, "origin": verifier.name, "reason": str(error)})
            raise
    _report(found, verifier, perf_counter() - started, as_json)


def _report(found: Verified, verifier: VerifierKey, seconds: float, as_json: bool) -> None:
    if as_json:
        echo_json(
            {
                "verified": True,
                "origin": verifier.name,
                "size": found.size,
                "root": found.root.hex(),
                "checkpoints": found.checkpoints,
                "segments": found.segments,
                "unsigned_records": found.unsigned_records,
                "set_back": found.set_back,
                "seconds": round(seconds, 3),
            }
        )
        return
    click.echo(f"The log {verifier.name} is whole.")
    click.echo(f"size {found.size}")
    click.echo(f"root {found.root.hex()}")
    click.echo(
        f"Checked {found.size} records, {found.checkpoints} signed checkpoints and {found.segments} segments "
        f"in {seconds:.2f} s; {found.unsigned_records} records stand behind the last checkpoint."
    )
    if found.set_back:
        click.echo(f"{found.set_back} records have an earlier time than the one before them: the clock was set back.")
