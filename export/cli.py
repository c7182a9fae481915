"""``python -m export``: the commands of the vendor's desk.

Exit codes: 0 done; 2 the command or the recipe has to be mended; 3 refused, with the reason in one sentence on stderr;
130 stopped by whoever was asked.
Output that is asked for goes to stdout; progress and reasons go to stderr, in colour only on a terminal.
"""

import json
import resource
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from appliance.bundle import enrolment, secret
from appliance.bundle import grant as grants
from appliance.bundle.grant import GRACE_DAYS_MAX, WORKERS_MAX, Terms
from appliance.bundle.signature import ALGORITHMS, ED25519
from appliance.canonical import format_time, is_fingerprint
from appliance.errors import ApplianceError, ConfigError, NotAdmitted
from export import files, keys, trust_cli
from export.errors import RecipeError
from export.options import (
    FILE,
    FOLDER,
    NEW,
    desk_policy,
    exporters,
    genuine,
    key_option,
    passphrase_files,
    passphrases,
    public,
    signers,
    utc_now,
)
from export.seal import countersign
from export.trust import Repository

TEMPLATES = Path(__file__).parent / "templates"
BUNDLE_SUFFIX = ".bundle"
KINDS = ("image", "tensor", "text", "onnx")
DONE, MEND, REFUSED, STOPPED = 0, 2, 3, 130
DESCRIPTIONS = {
    "read": "reading the recipe and the cases",
    "convert": "converting the network",
    "parity": "proving parity",
    "calibrate": "calibrating",
    "examine": "examining the data and the answers",
    "seal": "sealing",
}


def main() -> None:
    """Runs a command; every foreseen failure becomes one sentence and an exit code."""
    try:
        code = commands.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = _say("Stopped; nothing was written.", STOPPED)
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
    """Turns a trained classifier into a proven, calibrated, signed bundle."""


commands.add_command(trust_cli.group)


@commands.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the files.")
@click.option(
    "--role", "roles", type=click.Choice(keys.ROLES), multiple=True, required=True,
    help="Whose key to make. May be given several times, where one person has several roles.",
)  # fmt: skip
@click.option("--algorithm", type=click.Choice(sorted(ALGORITHMS)), default=ED25519, show_default=True)
@click.option("--token", metavar="URI", help="Make them inside the PKCS#11 token of a pkcs11: URI; only .pem files appear.")
@passphrase_files(required=False)
def keygen(out: Path, roles: tuple[str, ...], algorithm: str, token: str | None, passphrase_files: tuple[Path, ...]) -> None:
    """Make signing keys; existing ones are never overwritten."""
    if algorithm != ED25519 and not set(roles) <= set(keys.BUNDLE_ROLES):
        raise ConfigError("the release and root roles sign with Ed25519 alone")
    if token is not None:
        if algorithm != ED25519:
            raise ConfigError("a key in a token is an Ed25519 key")
        made = keys.generate_in_token(out, roles, token)
    elif len(passphrase_files) == 1:
        made = keys.generate(out, roles, passphrases(passphrase_files)[0], algorithm)
    else:
        raise ConfigError("give one --passphrase-file, which will open the keys")
    for name, key_id in made.items():
        click.echo(f"{name:20} {key_id}")


@commands.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--out", type=NEW, required=True, help="The recipe to write.")
def new(kind: str, out: Path) -> None:
    """Write a commented recipe to start from: for images, tensors or texts, or for images and an ONNX file."""
    files.write_new({out: ((TEMPLATES / f"{kind}.py").read_bytes(), False)})
    click.echo(f"{out.name}: replace what is in capitals; what it expects beside it stands at its top")


@commands.command()
@click.argument("recipe", type=FILE)
@click.option("--out", type=NEW, required=True, help="The bundle to write; its content key and report go beside it.")
@key_option("exporter")
@passphrase_files(required=True)
@click.option("--data", type=FOLDER, help="Folder handed to the recipe; its own folder if left out.")
@click.option("--report", type=NEW, help="The JSON report, if not beside the bundle; its page goes beside it.")
@click.option("--pictures/--no-pictures", default=True, help="Whether the page shows validation images.")
@click.option("--json", "as_json", is_flag=True, help="Print the report instead of a summary.")
def build(
    recipe: Path,
    out: Path,
    signing_keys: tuple[str, ...],
    passphrase_files: tuple[Path, ...],
    data: Path | None,
    report: Path | None,
    pictures: bool,
    as_json: bool,
) -> None:
    """Convert, prove, calibrate and seal the model of RECIPE. The first passphrase also seals the content key."""
    whole = out.with_suffix("") if out.suffix == BUNDLE_SUFFIX else out
    content_key, report = (
        whole.with_name(f"{whole.name}.content-key"),
        report or whole.with_name(f"{whole.name}.report.json"),
    )
    readable = report.with_suffix(".html")
    if len({path.resolve() for path in (out, content_key, report, readable)}) < 4:
        raise ConfigError("the bundle, its content key, its report and its page need four names; choose other ones")
    files.require_absent(out, content_key, report, readable)
    opening_words = passphrases(passphrase_files)
    by = signers(signing_keys, opening_words, keys.EXPORTER)
    from export import build as factory  # torch takes seconds to import; the other commands do without it
    from export.page import page

    with _progress() as progress:
        task = progress.add_task("", total=len(factory.STEPS))

        def announce(step: str) -> None:
            progress.update(task, description=DESCRIPTIONS[step], completed=factory.STEPS.index(step))

        built = factory.build(recipe, data, by, announce)
        progress.update(task, completed=len(factory.STEPS))
    figures = built.report | {"memory_mib": _memory_mib()}
    text = json.dumps(figures, indent=2, ensure_ascii=False, sort_keys=True)
    sealed = secret.seal(built.content_key, opening_words[0], keys.content_purpose(built.digest))
    files.write_new(
        {
            content_key: (sealed, True),
            report: (f"{text}\n".encode(), False),
            readable: (page(built.findings, pictures=pictures).encode(), False),
            out: (built.bundle, False),
        }
    )
    click.echo(text if as_json else _summary(figures, out))


@commands.command()
@click.argument("bundle", type=FILE)
@click.option("--out", type=NEW, required=True, help="The bundle to write.")
@exporters
@key_option("exporter")
@passphrase_files(required=False)
def sign(
    bundle: Path, out: Path, exporter: tuple[Path, ...], signing_keys: tuple[str, ...], passphrase_files: tuple[Path, ...]
) -> None:
    """Add signatures to BUNDLE, once it is verified. It stays the same otherwise: its digest and its grants are good as
    before.
    """
    genuine(bundle, desk_policy(public(exporter)))
    by = signers(signing_keys, passphrases(passphrase_files), keys.EXPORTER)
    files.write_new({out: (countersign(bundle.read_bytes(), by), False)})
    click.echo(f"signed       {out.name}, by {len(by)} more")


@commands.command()
@click.option("--bundle", type=FILE, required=True)
@click.option("--content-key", type=FILE, required=True, help="The file that build wrote beside the bundle.")
@click.option("--enrolment", "request", type=FILE, required=True, help="The appliance's enrolment request.")
@key_option("licensing desk")
@passphrase_files(required=True)
@click.option("--repository", type=FOLDER, required=True, help="The trust repository in which the bundle is published.")
@click.option("--days", type=click.IntRange(1, 36500), required=True, help="How long the grant is valid from now.")
@click.option("--grace-days", type=click.IntRange(0, GRACE_DAYS_MAX), default=30, show_default=True)
@click.option(
    "--workers-max", type=click.IntRange(1, WORKERS_MAX), help="Batches that may run at once; no limit if left out."
)
@click.option("--fingerprint", help="What a person at the site read out; asked for if left out.")
@click.option("--out", type=NEW, required=True)
def grant(
    bundle: Path,
    content_key: Path,
    request: Path,
    signing_keys: tuple[str, ...],
    passphrase_files: tuple[Path, ...],
    repository: Path,
    days: int,
    grace_days: int,
    workers_max: int | None,
    fingerprint: str | None,
    out: Path,
) -> None:
    """Give one appliance the key to one bundle. For the first time, or for longer."""
    files.require_absent(out)
    policy = Repository(repository).policy
    found = genuine(bundle, policy)
    found.require_published()
    applicant = enrolment.read(request.read_bytes())
    model = found.manifest.model
    # Last, below whatever the request says of itself: this line is the one to compare.
    click.echo(
        f"model        {model.id} {model.version}\nsite         {applicant.site}\nfingerprint  {applicant.fingerprint}"
    )
    if fingerprint is None:
        click.confirm("Has a person at the site read out this same fingerprint?", abort=True)
    elif not is_fingerprint(fingerprint, applicant.fingerprint):
        raise NotAdmitted(f"The request's fingerprint is {applicant.fingerprint}, which is not the one given.")
    opening_words = passphrases(passphrase_files)
    by = signers(signing_keys, opening_words, keys.LICENSING)
    unsealed = keys.unseal(content_key.read_bytes(), opening_words, keys.content_purpose(found.digest))
    now = utc_now()
    terms = Terms(
        manifest_sha256=found.digest,
        model=model.id,
        version=model.version,
        site=applicant.site,
        recipient=applicant.recipient.digest,
        not_before=now,
        not_after=now + timedelta(days=days),
        grace_days=grace_days,
        workers_max=workers_max,
    )
    issued = grants.issue(terms, unsealed, applicant.recipient, by)
    grants.read(issued, [policy])  # whatever every site would refuse is refused here
    files.write_new({out: (issued, False)})
    click.echo(f"valid until  {format_time(terms.not_after)}, and {grace_days} days of grace")


@commands.command()
@click.argument("bundle", type=FILE)
@exporters
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest.")
def inspect(bundle: Path, exporter: tuple[Path, ...], as_json: bool) -> None:
    """Show what a bundle says about itself. Its signature and its parts' digests are verified first."""
    found = genuine(bundle, desk_policy(public(exporter)))
    made = found.manifest
    if as_json:
        click.echo(json.dumps(asdict(made) | {"digest": found.digest}, indent=2, ensure_ascii=False, sort_keys=True))
        return
    rows = {
        "model": f"{made.model.id} {made.model.version}",
        "digest": found.digest,
        "created": made.created,
        "intended use": made.intended_use,
        "inputs": [f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in made.inputs],
        "labels": ", ".join(label.name for label in made.labels[:12]) + (" …" if len(made.labels) > 12 else ""),
        "decision": json.dumps(asdict(made.decision)),
        "parts": ", ".join(f"{part.name} ({part.plain_size:,} bytes)" for part in made.parts),
    }
    for name, value in rows.items():
        click.echo(f"{name:13} {value}")


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
            f"parity       {report['parity']['cases']} cases, largest difference in a logit "
            f"{report['parity']['logit_difference_e9'] / 1e9:.1e}",
            f"accuracy     {report['validation']['accuracy']:.2%}; calibration error {ece['before']:.2%} before, "
            f"{ece['after']:.2%} after temperature {calibration['temperature']:.3f}",
            f"accepted     from {calibration['score']} {calibration['accept_at_least']:.3f}: {point['errors']} errors in "
            f"{point['accepted']} answers, at most {point['bound']:.2%} with 95% confidence",
            "decisions    " + ", ".join(f"{name} {count}" for name, count in report["decisions"].items()),
            *(f"{finding['grade']:12} {finding['sentence']}" for finding in report["findings"] if finding["grade"] != "ok"),
            f"took         {sum(report['seconds'].values()):.1f} s; memory {report['memory_mib']['here']} MiB at most, "
            f"{report['memory_mib']['converting']} while converting",
        ]
    )


def _memory_mib() -> dict[str, int]:
    """The most that this process has had, and the largest of those that it started; Linux counts in KiB."""
    who = {"here": resource.RUSAGE_SELF, "converting": resource.RUSAGE_CHILDREN}
    return {name: resource.getrusage(which).ru_maxrss // 1024 for name, which in who.items()}


def _say(sentence: str, code: int) -> int:
    click.echo(sentence, err=True)
    return code
