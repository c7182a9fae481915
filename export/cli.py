"""``python -m export``: the commands of the vendor's desk.

Exit codes: 0 done; 2 the command or the recipe has to be mended; 3 refused, with the reason in one sentence on stderr.
Output that is asked for goes to stdout; progress and reasons go to stderr, in colour only on a terminal.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from appliance.bundle import enrolment, opening, secret, signature
from appliance.bundle import grant as grants
from appliance.bundle.grant import GRACE_DAYS_MAX, Terms
from appliance.bundle.opening import Genuine, TrustedKeys
from appliance.canonical import format_time
from appliance.errors import ApplianceError, ConfigError, NotAdmitted
from export import files, keys
from export.errors import RecipeError

F = TypeVar("F", bound=Callable[..., Any])

DONE, MEND, REFUSED = 0, 2, 3
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW = click.Path(dir_okay=False, path_type=Path)
DESCRIPTIONS = {
    "read": "reading the recipe and the images",
    "convert": "converting the module",
    "parity": "proving parity",
    "calibrate": "calibrating",
    "seal": "sealing",
}


def main() -> None:
    """Runs a command; every foreseen failure becomes one sentence and an exit code."""
    try:
        code = commands.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = _say("Stopped; nothing was written.", REFUSED)
    except click.ClickException as error:
        error.show()
        code = MEND
    except (RecipeError, ConfigError) as error:
        code = _say(str(error), MEND)
    except ApplianceError as error:
        code = _say(str(error), REFUSED)
    except OSError as error:
        code = _say(f"{error.strerror or error}: {error.filename}", MEND)
    sys.exit(code or DONE)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Turns a trained torch classifier into a proven, calibrated, signed bundle."""


def passphrase_file(command: F) -> F:
    return click.option(
        "--passphrase-file",
        type=FILE,
        required=True,
        help="File whose first line opens (or will open) the private keys.",
    )(command)


@commands.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the four files.")
@passphrase_file
def keygen(out: Path, passphrase_file: Path) -> None:
    """Make the exporter key and the licensing key; existing ones are never overwritten."""
    for name, key_id in keys.generate(out, _passphrase(passphrase_file)).items():
        click.echo(f"{name:10} {key_id}")


@commands.command()
@click.argument("recipe", type=FILE)
@click.option("--out", type=NEW, required=True, help="The bundle to write; its content key and report go beside it.")
@click.option("--key", type=FILE, required=True, help="exporter.key")
@passphrase_file
@click.option("--data", type=FOLDER, help="Folder handed to the recipe; its own folder if left out.")
@click.option("--report", type=NEW, help="Where the report goes, if not beside the bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print the report instead of a summary.")
def build(
    recipe: Path, out: Path, key: Path, passphrase_file: Path, data: Path | None, report: Path | None, as_json: bool
) -> None:
    """Convert, prove, calibrate and seal the model of RECIPE."""
    content_key, report = out.with_suffix(".content-key"), report or out.with_suffix(".report.json")
    files.require_absent(out, content_key, report)
    passphrase = _passphrase(passphrase_file)
    signer = keys.private(key, passphrase, keys.EXPORTER)
    from export import build as factory  # torch takes seconds to import; the other commands do without it

    with _progress() as progress:
        task = progress.add_task("", total=len(factory.STEPS))

        def announce(step: str) -> None:
            progress.update(task, description=DESCRIPTIONS[step], completed=factory.STEPS.index(step))

        built = factory.build(recipe, data, [signer], announce)
        progress.update(task, completed=len(factory.STEPS))
    text = json.dumps(built.report, indent=2, ensure_ascii=False, sort_keys=True)
    sealed = secret.seal(built.content_key, passphrase, keys.content_purpose(built.digest))
    files.write_new({content_key: (sealed, True), report: (f"{text}\n".encode(), False), out: (built.bundle, False)})
    click.echo(text if as_json else _summary(built.report, out))


@commands.command()
@click.option("--bundle", type=FILE, required=True)
@click.option("--content-key", type=FILE, required=True, help="The file that build wrote beside the bundle.")
@click.option("--enrolment", "request", type=FILE, required=True, help="The appliance's enrolment request.")
@click.option("--key", type=FILE, required=True, help="licensing.key")
@passphrase_file
@click.option("--exporter", type=FILE, required=True, help="exporter.pem: the bundle must be signed by it.")
@click.option("--days", type=click.IntRange(1, 36500), required=True, help="How long the grant is valid from now.")
@click.option("--grace-days", type=click.IntRange(0, GRACE_DAYS_MAX), default=30, show_default=True)
@click.option("--fingerprint", help="What a person at the site read out; asked for if left out.")
@click.option("--out", type=NEW, required=True)
def grant(
    bundle: Path,
    content_key: Path,
    request: Path,
    key: Path,
    passphrase_file: Path,
    exporter: Path,
    days: int,
    grace_days: int,
    fingerprint: str | None,
    out: Path,
) -> None:
    """Give one appliance the key to one bundle."""
    files.require_absent(out)
    genuine = _genuine(bundle, exporter)
    applicant = enrolment.read(request.read_bytes())
    model = genuine.manifest.model
    click.echo(
        f"site         {applicant.site}\nfingerprint  {applicant.fingerprint}\nmodel        {model.id} {model.version}"
    )
    if fingerprint is None:
        click.confirm("Has a person at the site read out this same fingerprint?", abort=True)
    elif "".join(fingerprint.lower().split()) != applicant.fingerprint.replace(" ", ""):
        raise NotAdmitted(f"The request's fingerprint is {applicant.fingerprint}, which is not the one given.")
    passphrase = _passphrase(passphrase_file)
    signer = keys.private(key, passphrase, keys.LICENSING)
    unsealed = secret.unseal(content_key.read_bytes(), passphrase, keys.content_purpose(genuine.digest))
    now = datetime.now(UTC).replace(microsecond=0)
    terms = Terms(
        manifest_sha256=genuine.digest,
        model=model.id,
        version=model.version,
        site=applicant.site,
        recipient=applicant.recipient.digest,
        not_before=now,
        not_after=now + timedelta(days=days),
        grace_days=grace_days,
    )
    files.write_new({out: (grants.issue(terms, unsealed, applicant.recipient, signer), False)})
    click.echo(f"valid until  {format_time(terms.not_after)}, and {grace_days} days of grace")


@commands.command()
@click.argument("bundle", type=FILE)
@click.option("--exporter", type=FILE, required=True, help="exporter.pem: the bundle must be signed by it.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest.")
def inspect(bundle: Path, exporter: Path, as_json: bool) -> None:
    """Show what a bundle says about itself, once its signature and its parts' digests are verified."""
    genuine = _genuine(bundle, exporter)
    made = genuine.manifest
    if as_json:
        click.echo(json.dumps(asdict(made) | {"digest": genuine.digest}, indent=2, ensure_ascii=False, sort_keys=True))
        return
    rows = {
        "model": f"{made.model.id} {made.model.version}",
        "digest": genuine.digest,
        "created": made.created,
        "intended use": made.intended_use,
        "input": f"{made.input.height} × {made.input.width} × {made.input.channels}, {made.input.resize}",
        "labels": ", ".join(label.name for label in made.labels[:12]) + (" …" if len(made.labels) > 12 else ""),
        "decision": json.dumps(asdict(made.decision)),
        "parts": ", ".join(f"{part.name} ({part.plain_size:,} bytes)" for part in made.parts),
    }
    for name, value in rows.items():
        click.echo(f"{name:13} {value}")


def _genuine(bundle: Path, exporter: Path) -> Genuine:
    trusted = TrustedKeys(signature.key_ring([keys.public(exporter)]), {})
    genuine = opening.parse(bundle.read_bytes()).verify(trusted)
    genuine.check_parts()
    return genuine


def _passphrase(path: Path) -> bytes:
    """The file's first line, without its end."""
    passphrase = path.read_bytes().partition(b"\n")[0]
    if not passphrase:
        raise ConfigError("the passphrase file's first line is empty")
    return passphrase


def _progress() -> Progress:
    # transient: what stays on the screen is the summary; on a pipe nothing is drawn at all.
    columns = (TextColumn("{task.description:36}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _summary(report: dict[str, Any], out: Path) -> str:
    calibration, point = report["calibration"], report["calibration"]["operating_point"]
    ece = calibration["expected_calibration_error"]
    return "\n".join(
        [
            f"{out.name}: {report['model']['id']} {report['model']['version']}, digest {report['model']['digest']}",
            f"parity       {report['parity']['images']} images, largest difference in a logit "
            f"{report['parity']['logit_difference_e9'] / 1e9:.1e}",
            f"accuracy     {report['validation']['accuracy']:.2%}; calibration error {ece['before']:.2%} before, "
            f"{ece['after']:.2%} after temperature {calibration['temperature']:.3f}",
            f"accepted     from probability {calibration['accept_at_least']:.3f}: {point['errors']} errors in "
            f"{point['accepted']} answers, at most {point['bound']:.2%} with 95% confidence",
            "decisions    " + ", ".join(f"{name} {count}" for name, count in report["decisions"].items()),
            f"took         {sum(report['seconds'].values()):.1f} s",
        ]
    )


def _say(sentence: str, code: int) -> int:
    click.echo(sentence, err=True)
    return code
