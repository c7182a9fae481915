"""``appliance predict``"""

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from appliance.cli import echo_json
from appliance.cli.options import FILE, JSON
from appliance.client import Client
from appliance.v1 import classification_pb2 as pb


@click.command("predict")
@click.option("--address", required=True, help="HOST:PORT of the appliance.")
@click.option("--ca", type=FILE, required=True, help="The CA that signed the appliance's certificate, PEM.")
@click.option("--certificate", type=FILE, required=True, help="Your certificate, PEM.")
@click.option("--key", type=FILE, required=True, help="Your certificate's key, PEM.")
@click.option("--model", required=True)
@click.option("--version", type=click.IntRange(0), default=0, help="Default: the active version.")
@click.option("--reference", default="", help="Your own reference, recorded with the call: 64 of A-Z a-z 0-9 - at most.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True, help="Seconds.")
@click.argument("files", type=FILE, nargs=-1, required=True)
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
    files: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Ask an appliance about PNG or JPEG FILES. They go in one call."""
    with Client.from_files(address, ca, certificate, key, timeout) as client:
        images = [path.read_bytes() for path in files]
        answer = client.classify(model, images, version=version, client_reference=reference)
    if as_json:
        echo_json(_document(answer, files))
        return
    table = Table("file", "decision", "label", "confidence", "distance")
    for path, result in zip(files, answer.results, strict=True):
        accepted = result.decision == pb.ACCEPT
        distance = f"{result.distance:.2f}" if result.HasField("distance") else ""
        label = result.label.name if accepted else f"({result.label.name})"
        table.add_row(path.name, pb.Decision.Name(result.decision), label, f"{result.confidence:.4f}", distance)
    console = Console()
    console.print(table)
    console.print(f"{answer.model} version {answer.version}, digest {answer.model_digest}", highlight=False)
    console.print(f"Record {answer.log_index} of the audit log. {answer.intended_use}", highlight=False)


def _document(answer: pb.ClassifyResponse, files: tuple[Path, ...]) -> dict[str, object]:
    return {
        "model": answer.model,
        "version": answer.version,
        "model_digest": answer.model_digest,
        "log_index": answer.log_index,
        "leaf_hash": answer.leaf_hash.hex(),
        "request_id": answer.request_id,
        "results": [
            {
                "file": str(path),
                "decision": pb.Decision.Name(result.decision),
                "label": result.label.name,
                "confidence": result.confidence,
                "distance": result.distance if result.HasField("distance") else None,
            }
            for path, result in zip(files, answer.results, strict=True)
        ],
    }
