"""``appliance audit tail``, ``show``, ``search``, ``prove`` and ``receipt``: reading the log, and what a record proves.

Of a site the log is read through the appliance, or as an act where that is stopped, so that reading it is on record. A copy
of a log is just files.
"""

import codecs
import csv
import hmac
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from appliance import override
from appliance.audit import dicom, fhir, proof, stored
from appliance.audit import tiles as tile_files
from appliance.audit.checkpoint import VerifierKey
from appliance.audit.pseudonym import of_record, pseudonyms
from appliance.audit.record import TIME
from appliance.audit.verify import KEY_FILE
from appliance.cli import echo_json
from appliance.cli.options import FILE, JSON, read_site
from appliance.config import Config
from appliance.errors import AuditLogError, ConfigError

LOG = click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False), default=".")
COLUMNS = ("index", "time", "event", "method", "outcome", "error", "caller", "model", "version", "rows", "top", "decisions")


@dataclass(frozen=True, slots=True)
class Found:
    """A record: its place, its bytes, what they say, and its receipt where that was asked for."""

    index: int
    data: bytes
    said: dict[str, Any]
    receipt: bytes

    def columns(self) -> list[str]:
        """What a person looks for, for each of ``COLUMNS``; empty where the record says nothing."""
        said, model, output = self.said, self.said.get("model", {}), self.said.get("output", {})
        values = (
            *(said.get(name) for name in COLUMNS[:6]),
            said.get("caller", {}).get("name"),
            model.get("id"),
            model.get("version"),
            said.get("input", {}).get("rows"),
            " ".join(map(str, output.get("top", ()))),
            output.get("decisions"),
        )
        return ["" if value is None else str(value) for value in values]


def records(directory: Path, first: int = 0, *, limit: int = 0, newest: int = 0, receipts: bool = False) -> Iterator[Found]:
    """Records of a site, or of a copy of a log. Raises AuditLogError, CallFailed."""
    if (site := _site(directory)) is not None:
        from appliance.cli.operator import operator  # a copy of a log needs no runtime

        with operator(site) as acting:
            for record in acting.read_audit(first, limit=limit, newest=newest, receipts=receipts):
                yield Found(record.index, record.record, json.loads(record.record), record.receipt)
        return
    if newest:
        first = max(0, stored.size(directory) - newest)
    for kept in stored.read(directory, first, first + limit if limit else None):
        yield Found(kept.index, kept.data, json.loads(kept.data), kept.receipt() if receipts else b"")


def files_of(directory: Path) -> Path:
    """The folder of a log's files, of a copy or of a site; that somebody reads the latter is put on record."""
    if (site := _site(directory)) is None:
        return directory
    next(records(directory, newest=1), None)
    return site.audit


def _site(directory: Path) -> Config | None:
    """The configuration of a site; None where the directory is a copy of a log."""
    return read_site(directory) if (directory / "appliance.toml").exists() else None


def one(directory: Path, index: int) -> Found:
    """A record and its receipt. Raises AuditLogError where there is none."""
    for found in records(directory, index, limit=1, receipts=True):
        return found
    raise AuditLogError(f"The log has no record {index}.")


@click.command("tail")
@LOG
@click.option("-n", "count", type=click.IntRange(1), default=20, show_default=True, help="How many records.")
def tail(directory: Path, count: int) -> None:
    """Show the newest records. DIRECTORY is a site's, or a copy of a log; of a site, the reading is itself recorded."""
    _print(records(directory, newest=count), "text", directory)


@click.command("show")
@click.argument("index", type=click.IntRange(0))
@LOG
def show(index: int, directory: Path) -> None:
    """Show record INDEX whole."""
    echo_json(one(directory, index).said)


@click.command("search")
@LOG
@click.option("--since", help="Not before this time, UTC: 2026-11-24 or 2026-11-24T08:30:00Z.")
@click.option("--until", help="Before this time.")
@click.option("--first", type=click.IntRange(0), default=0, help="From this index on: one more than the last that you have.")
@click.option("--caller", help="By its name on record, such as DNS:ward-7.")
@click.option("--model", help="By its id.")
@click.option("--event", help="call, or an act such as model.activate.")
@click.option("--outcome", help="answered, denied, invalid, shed, expired, cancelled, unavailable, done or failed.")
@click.option("--decision", type=click.Choice(["accept", "abstain", "out-of-distribution"]), help="Of any row.")
@click.option("--reference", help="The caller's own reference.")
@click.option(
    "--format", "form", type=click.Choice(["text", "csv", "jsonl", "fhir", "dicom"]), default="text", show_default=True
)
def search(
    directory: Path, since: str | None, until: str | None, first: int, decision: str | None, form: str, **wanted: str | None
) -> None:
    """Find records, or export them all. jsonl is the exact bytes that are in the log, a line for each record; fhir is an
    AuditEvent of FHIR R4 for each, dicom an audit message of DICOM PS3.15, section A.5, as XML.
    """
    after, before = _time(since), _time(until)
    letter = {"accept": "A", "abstain": "B", "out-of-distribution": "O", None: ""}[decision]

    def fits(found: Found) -> bool:
        said = found.said
        given = {
            "caller": said.get("caller", {}).get("name"),
            "model": said.get("model", {}).get("id"),
            "event": said["event"],
            "outcome": said["outcome"],
            "reference": said.get("client_reference"),
        }
        return (
            (after is None or said["time"] >= after)
            and (before is None or said["time"] < before)
            and letter in said.get("output", {}).get("decisions", "")
            and all(value is None or given[name] == value for name, value in wanted.items())
        )

    _print(filter(fits, records(directory, first)), form, directory)


@click.command("prove")
@click.argument("index", type=click.IntRange(0))
@LOG
@click.option(
    "--image",
    "--text",
    "file",
    type=FILE,
    help="Also show that this file is one of those that were scored; needs the site's key.",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Where the receipt goes. Default: stdout."
)
def prove(index: int, directory: Path, file: Path | None, out: Path | None) -> None:
    """Write the receipt of record INDEX: a proof that it is in the log, which the log's public key is enough to check."""
    found = one(directory, index)
    if file is not None:
        click.echo(_about(found, _row_of(found, directory, file.read_bytes())), err=True)
    if out is None:
        click.echo(found.receipt.decode(), nl=False)
    else:
        out.write_bytes(found.receipt)


@click.command("receipt")
@click.argument("file", type=FILE)
@click.option("--key", type=FILE, required=True, help=f"The log's verifier key: {KEY_FILE}, from a safe place.")
@JSON
def receipt(file: Path, key: Path, as_json: bool) -> None:
    """Check a receipt, with nothing but the log's public key, and show what it proves. Exit 4 if it proves nothing."""
    verifier = VerifierKey.decode(key.read_text())
    index, data = proof.decode(file.read_bytes(), verifier)
    if as_json:
        echo_json({"origin": verifier.name, "index": index, "record": json.loads(data)})
        return
    click.echo(f"This is record {index} of the log {verifier.name}:")
    echo_json(json.loads(data))


@click.command("tiles")
@LOG
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def tiles(directory: Path, folder: Path) -> None:
    """Write a log as static files in the layout of C2SP tlog-tiles to FOLDER, for others' tools; again, what is new."""
    count = tile_files.write(files_of(directory), folder)
    click.echo(f"{folder} holds {count} records.")


def _row_of(found: Found, directory: Path, content: bytes) -> int:
    """Which row of the record a file was.

    Raises:
        AuditLogError: it was none, or the record is not what the log's signature covers.
        ConfigError: nobody can say any more.
    """
    if (site := _site(directory)) is None:
        raise ConfigError("only the site itself can say which file was scored: its key is not in the log")
    from appliance import wiring

    keys = wiring.key_provider(site)
    if proof.decode(found.receipt, wiring.log_key(keys).verifier) != (found.index, found.data):
        raise AuditLogError(f"The receipt is not of record {found.index}.")
    _, own = of_record(found.said, keys)
    unmarked = content.removeprefix(codecs.BOM_UTF8)  # `appliance predict` sends a text without this mark of Windows
    for row, key in enumerate(own):
        names = () if key is None else pseudonyms([key, key], [[content], [unmarked]])
        if any(hmac.compare_digest(name, found.said["input"]["pseudonyms"][row]) for name in names):
            return row
    if erased := own.count(None):
        raise ConfigError(
            f"{erased} of the {len(own)} images of record {found.index} were erased: nobody can say any more whether the "
            "file was one of those; it is none of the others"
        )
    raise AuditLogError(f"The file is none of those of record {found.index}.")


def _about(found: Found, row: int) -> str:
    said, caller = found.said, found.said["caller"]["name"]
    text = f"The file is row {row} of record {found.index}, {said['time']}, asked by {caller}: {said['outcome']}"
    if "output" not in said:
        return f"{text}."
    model, output = said["model"], said["output"]
    confidence = output["confidence_e6"][row] / 1e6
    return (
        f"{text}. {model['id']} version {model['version']} ({model['digest'][:16]}…) said class {output['top'][row]} with "
        f"confidence {confidence:.4f}, decision {output['decisions'][row]}{_by_whom(model)}."
    )


def _by_whom(model: Mapping[str, Any]) -> str:
    """Where a threshold of the site's own has decided, which."""
    if "override" not in model:
        return ""
    return f", by an operator's act and not as signed: it {override.decode(model['override'])}"


def _print(found: Iterator[Found], form: str, directory: Path) -> None:
    match form:
        case "fhir":
            origin = _origin(directory)
            for record in found:
                click.echo(json.dumps(fhir.event(record.said, origin), ensure_ascii=False))
        case "dicom":
            origin = _origin(directory)
            for record in found:
                click.echo(dicom.message(record.said, origin))
        case "jsonl":
            for record in found:
                click.echo(record.data.decode())
        case "csv":
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(record.columns() for record in found)
        case _:
            for record in found:
                index, time, event, method, *rest = record.columns()
                click.echo(f"{index:>8}  {time}  {(method.rpartition('/')[2] or event):<16} {'  '.join(filter(None, rest))}")


def _origin(directory: Path) -> str:
    """The log's name. Raises AuditLogError where its key is not with it."""
    folder = directory if (site := _site(directory)) is None else site.audit
    try:
        return VerifierKey.decode((folder / KEY_FILE).read_text()).name
    except OSError:
        raise AuditLogError(f"There is no verifier key {KEY_FILE} in the directory, which names the log.") from None


def _time(text: str | None) -> str | None:
    """A time as records spell it, so that they compare as text. Raises BadParameter."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a time such as 2026-11-24 or 2026-11-24T08:30:00Z.") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.strftime(TIME)


COMMANDS: tuple[click.Command, ...] = (tail, show, search, prove, receipt, tiles)
