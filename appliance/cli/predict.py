"""``appliance predict``: images or texts, in one call. A text is not printed again, for others may see the answer."""

from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from appliance.cli import echo_json
from appliance.cli.options import FILE, JSON
from appliance.client import Client
from appliance.errors import ConfigError
from appliance.v1 import classification_pb2 as pb

TEXT_SUFFIX = ".txt"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to ask about: ``name`` is what the answer shows of it, and ``file`` where it was, if in a file."""

    name: str
    file: str | None
    content: bytes | str


@click.command("predict")
@click.option("--address", required=True, help="HOST:PORT of the appliance.")
@click.option("--ca", type=FILE, required=True, help="The CA that signed the appliance's certificate, PEM.")
@click.option("--certificate", type=FILE, required=True, help="Your certificate, PEM.")
@click.option("--key", type=FILE, required=True, help="Your certificate's key, PEM.")
@click.option("--model", required=True)
@click.option("--version", type=click.IntRange(0), default=0, help="Default: the active version.")
@click.option("--reference", default="", help="Your own reference, recorded with the call: 64 of A-Z a-z 0-9 - at most.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True, help="Seconds.")
@click.option(
    "--text",
    "texts",
    multiple=True,
    help="A text; may be given again. This machine's other users may see it while it is asked, and your shell may keep it: "
    "a patient's is better in a file.",
)
@click.argument("files", type=FILE, nargs=-1)
@JSON
def command(
    address: str,
    ca: Path,
    certificate: Path,
    key: Path,
    model: str,
    version: int,
    reference: str,
    timeout: float,
    texts: tuple[str, ...],
    files: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Ask an appliance about FILES, in one call: PNG or JPEG images, or .txt files of one text each, in UTF-8."""
    items = [_of_file(path) for path in files]
    items += [
        Item(f"--text {number}", None, _text(text.encode(errors="surrogateescape"), f"--text {number}"))
        for number, text in enumerate(texts, 1)
    ]
    images = [item.content for item in items if isinstance(item.content, bytes)]
    words = [item.content for item in items if isinstance(item.content, str)]
    if bool(images) == bool(words):
        raise click.UsageError("Give image files, or texts (.txt files, --text), and not both.")
    with Client.from_files(address, ca, certificate, key, timeout) as client:
        answer = client.classify(model, images, texts=words, version=version, client_reference=reference)
    if as_json:
        echo_json(_document(answer, items))
        return
    table = Table("file", "decision", "label", "confidence", "distance")
    for item, result in zip(items, answer.results, strict=True):
        accepted = result.decision == pb.ACCEPT
        distance = f"{result.distance:.2f}" if result.HasField("distance") else ""
        label = result.label.name if accepted else f"({result.label.name})"
        # Names of files and labels are words, not markup.
        table.add_row(Text(item.name), pb.Decision.Name(result.decision), Text(label), f"{result.confidence:.4f}", distance)
    console = Console()
    console.print(table)
    for line in (
        f"{answer.model} version {answer.version}, digest {answer.model_digest}",
        f"Record {answer.log_index} of the audit log. {answer.intended_use}",
    ):
        console.print(line, highlight=False, markup=False)


def _of_file(path: Path) -> Item:
    """Raises ConfigError where it is named as a text, and is not UTF-8."""
    content = path.read_bytes()
    is_text = path.suffix.lower() == TEXT_SUFFIX
    return Item(path.name, str(path), _text(content, str(path)) if is_text else content)


def _text(content: bytes, where: str) -> str:
    """Raises ConfigError where it is not UTF-8."""
    try:
        # Windows marks UTF-8 by three bytes that are no part of the text, and would be a word that no model knows.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{where} is not UTF-8") from None


def _document(answer: pb.ClassifyResponse, items: list[Item]) -> dict[str, object]:
    return {
        "model": answer.model,
        "version": answer.version,
        "model_digest": answer.model_digest,
        "log_index": answer.log_index,
        "leaf_hash": answer.leaf_hash.hex(),
        "request_id": answer.request_id,
        "results": [
            {
                "file": item.file,
                "decision": pb.Decision.Name(result.decision),
                "label": result.label.name,
                "confidence": result.confidence,
                "distance": result.distance if result.HasField("distance") else None,
            }
            for item, result in zip(items, answer.results, strict=True)
        ],
    }
