"""``appliance demo``: the whole job on this machine, from training to a verified audit log, with the real commands."""

import json
import random
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from shutil import rmtree
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import click
import grpc
from cryptography import x509
from rich.console import Console
from rich.progress import track
from rich.table import Table

from appliance.cli.authority import Authority
from appliance.client import Client
from appliance.errors import ConfigError
from appliance.oip import open_inference_pb2 as oip
from appliance.oip import open_inference_pb2_grpc as oip_grpc
from appliance.v1.classification_pb2 import Decision

CALLER = "demo-client"
BATCH = 32
ROLES = ("root", "release", "exporter", "licensing")
PASSPHRASE = "a passphrase for the demo alone\n"  # noqa: S105  it guards nothing but the demo's own keys

_ACCESS = f"""
[[access]]
caller = "DNS:{CALLER}"
roles = ["predict", "observe", "administer"]
models = ["*"]
"""

console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the appliance said of one image, and how long it took."""

    decision: str
    label: str
    seconds: float


@click.command("demo")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default="build/demo", show_default=True)
@click.option("--source", type=click.Path(path_type=Path, exists=True), default=".", help="A checkout of the source.")
def command(out: Path, source: Path) -> None:
    """Do everything once, and end. Train, export, seal, enrol, grant, install, serve, ask, verify."""
    recipe = source / "examples" / "digits" / "recipe.py"
    if not recipe.is_file() or not (source / "export").is_dir():
        raise ConfigError("the demo needs a checkout of the source; run `make demo` there")
    console.print(f"[bold]The whole job on this machine.[/] Everything it makes stays in {out}; it ends by itself.")
    rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    out = out.absolute()
    factory = _Factory(source.absolute(), out)
    factory.make_bundle(recipe.absolute())
    site = _make_site(out, factory, factory.publish())
    report = _serve_and_ask(out, site, Reference.read(out / "data"))
    report |= _verify(out, site)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"What the vendor found out about the model, as a page for people: {out / 'digits.report.html'}")
    console.print(f"[bold green]Done.[/] The figures are in {out / 'report.json'}.")
    if report["top_class_agreement"] != 1.0 or not report["audit_verified"] or not report["tampered_bundle_refused"]:
        raise SystemExit(1)


class _Factory:
    """The vendor's side: ``python -m export``, in a checkout."""

    def __init__(self, source: Path, out: Path) -> None:
        self._source, self._out = source, out
        self._vendor = out / "vendor"
        self._secret = out / "vendor-passphrase"
        self._secret.write_text(PASSPHRASE)
        self._secret.chmod(0o600)
        self.bundle, self.grant, self.trust = out / "digits.bundle", out / "digits.grant", out / "trust-repository"

    def make_bundle(self, recipe: Path) -> None:
        _step("Vendor: train a small CNN on the handwritten digits that ship in scikit-learn")
        _run([sys.executable, str(recipe.parent / "train.py"), str(self._out / "data")], self._source)
        _step("Vendor: export it to ONNX, prove parity, calibrate, sign and encrypt")
        self._export("keygen", "--out", str(self._vendor), *(word for role in ROLES for word in ("--role", role)))
        self._export(
            "build", str(recipe), "--data", str(self._out / "data"), "--out", str(self.bundle),
            "--key", str(self._vendor / "exporter.key"),
        )  # fmt: skip

    def publish(self) -> str:
        """Makes the trust repository, and publishes the bundle in it; the fingerprint of its root."""
        _step("Vendor: say which keys count, and that sites may use the bundle")
        keys = [item for role in ("root", "release") for item in ("--key", str(self._vendor / f"{role}.key"))]
        public = [item for role in ROLES for item in (f"--{role}", str(self._vendor / f"{role}.pem"))]
        said = self._export("trust", "init", str(self.trust), "--vendor", "demo-vendor", *public, *keys)
        self._export("trust", "publish", str(self.trust), "--bundle", str(self.bundle), *keys[2:])
        return next(line.partition("  ")[2] for line in said.splitlines() if line.startswith("fingerprint"))

    def make_grant(self, enrolment: Path, fingerprint: str) -> None:
        self._export(
            "grant", "--bundle", str(self.bundle), "--content-key", str(self.bundle.with_suffix(".content-key")),
            "--enrolment", str(enrolment), "--fingerprint", fingerprint, "--key", str(self._vendor / "licensing.key"),
            "--repository", str(self.trust), "--days", "365", "--out", str(self.grant),
        )  # fmt: skip

    def _export(self, *arguments: str) -> str:
        return _run([sys.executable, "-m", "export", *arguments, "--passphrase-file", str(self._secret)], self._source)


def _make_site(out: Path, factory: _Factory, root_fingerprint: str) -> Path:
    _step("Hospital: make the site and its keys; trust the vendor, enrol with it")
    site = out / "site"
    _appliance("init", str(site), "--name", "Demo hospital", "--dns", "localhost")
    authority = Authority()
    authority.server(site / "tls")
    authority.client(out / "client", x509.DNSName(CALLER))
    settings = (site / "appliance.toml").read_text()
    for address, port in (("0.0.0.0:8443", 8443), ("127.0.0.1:9464", 9464)):
        settings = settings.replace(address, f"127.0.0.1:{_free_port(port)}")
    (site / "appliance.toml").write_text(settings + _ACCESS)
    _appliance("trust", "update", "--site", str(site), str(factory.trust), "--fingerprint", root_fingerprint)
    fingerprint = _appliance("enroll", "--site", str(site)).splitlines()[-1]
    _step("Vendor: grant this one appliance the key to the bundle")
    factory.make_grant(site / "enrolment.json", fingerprint)
    _step("Hospital: check, install and activate it")
    _appliance("models", "install", "--site", str(site), "--bundle", str(factory.bundle), "--grant", str(factory.grant))
    _appliance("models", "activate", "--site", str(site), "digits", "1")
    _appliance("check", "--site", str(site))
    return site


@dataclass(frozen=True, slots=True)
class Reference:
    """The held-out test images, what they show, and the logits that torch gave for them."""

    images: list[bytes]
    labels: list[str]
    logits: Any

    @classmethod
    def read(cls, data: Path) -> "Reference":
        import numpy as np

        with np.load(data / "test-reference.npz", allow_pickle=False) as arrays:
            paths = [data / str(path) for path in arrays["paths"]]
            return cls([path.read_bytes() for path in paths], [path.parent.name for path in paths], arrays["logits"])


def _serve_and_ask(out: Path, site: Path, test: Reference) -> dict[str, Any]:
    _step("Hospital: serve over mutual TLS, and send it images")
    started = perf_counter()
    with _serving(site) as ports:
        address = f"localhost:{ports['port']}"
        files = [out / "client" / name for name in ("ca.crt", "client.crt", "client.key")]
        with Client.from_files(address, files[0], files[1], files[2]) as client:
            client.classify("digits", [test.images[0]])
            start_seconds = perf_counter() - started
            answers = [_ask(client, image) for image in track(test.images, "Test images", console=console)]
            strangers = {kind: [_ask(client, image) for image in images] for kind, images in _strangers().items()}
        logits = _served_logits(address, files, test.images)
        _show_decisions({"held-out digits": answers} | strangers)
        _show_metrics(ports["metrics_port"])
    agreement = float((logits.argmax(1) == test.logits.argmax(1)).mean())
    milliseconds = [answer.seconds * 1e3 for answer in answers]
    right = [answer.label == label for answer, label in zip(answers, test.labels, strict=True)]
    torch_right = [int(top) == int(label) for top, label in zip(test.logits.argmax(1), test.labels, strict=True)]
    return {
        "images": len(answers),
        "served_accuracy": sum(right) / len(right),
        "torch_accuracy": sum(torch_right) / len(right),
        "top_class_agreement": agreement,
        "parity_max_abs_logit": float(abs(logits - test.logits).max()),
        "latency_ms_p50": median(milliseconds),
        "latency_ms_p99": quantiles(milliseconds, n=100)[98],
        "server_start_seconds": start_seconds,
        "decisions": {
            kind: dict(Counter(answer.decision for answer in group))
            for kind, group in ({"digits": answers} | strangers).items()
        },
    }


def _verify(out: Path, site: Path) -> dict[str, Any]:
    _step("Auditor: verify the log; attacker: change one bit of the bundle")
    log = json.loads(_appliance("audit", "verify", str(site / "audit"), "--json", show=False))
    console.print(f"The audit log is whole: {log['size']} records, root {log['root']}")
    data = bytearray((out / "digits.bundle").read_bytes())
    data[len(data) // 2] ^= 1
    tampered = out / "tampered.bundle"
    tampered.write_bytes(data)
    asked = [sys.executable, "-m", "appliance", "bundle", "verify", "--site", str(site), str(tampered)]
    refusal = subprocess.run(asked, capture_output=True, text=True, check=False)
    console.print(refusal.stdout.strip())
    return {
        "audit_records": log["size"],
        "audit_verified": log["verified"],
        "tampered_bundle_refused": refusal.returncode == 3,
    }


def _ask(client: Client, image: bytes) -> Answer:
    started = perf_counter()
    result = client.classify("digits", [image]).results[0]
    return Answer(Decision.Name(result.decision), result.label.name, perf_counter() - started)


def _served_logits(address: str, files: list[Path], images: list[bytes]) -> Any:
    """The raw logits, over the other protocol: what a Triton or KServe client would get."""
    import numpy as np

    ca, certificate, key = (path.read_bytes() for path in files)
    rows = []
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, certificate)) as channel:
        stub = oip_grpc.GRPCInferenceServiceStub(channel)
        for start in range(0, len(images), BATCH):
            request = oip.ModelInferRequest(model_name="digits")
            batch = images[start : start + BATCH]
            request.inputs.add(name="image", datatype="BYTES", shape=[len(batch)]).contents.bytes_contents.extend(batch)
            request.outputs.add(name="logits")
            answer = stub.ModelInfer(request)
            rows.append(np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(answer.outputs[0].shape))
    return np.concatenate(rows)


def _strangers() -> dict[str, list[bytes]]:
    """Images that are not handwritten digits: 26 letters, 20 of noise, 16 blank ones."""
    from PIL import Image, ImageDraw, ImageFont

    def png(image: Image.Image) -> bytes:
        buffer = BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    def letter(text: str) -> Image.Image:
        image = Image.new("L", (64, 64), 0)
        ImageDraw.Draw(image).text((32, 32), text, 255, ImageFont.load_default(56), anchor="mm")
        return image

    seeded = random.Random(0)  # noqa: S311  not a secret
    noise = [Image.frombytes("L", (64, 64), seeded.randbytes(64 * 64)) for _ in range(20)]
    blank = [Image.new("L", (64, 64), level) for level in range(0, 256, 17)]
    return {
        "letters": [png(letter(chr(code))) for code in range(ord("A"), ord("Z") + 1)],
        "noise": [png(image) for image in noise],
        "blank": [png(image) for image in blank],
    }


@contextmanager
def _serving(site: Path) -> Iterator[dict[str, int]]:
    """A serving appliance; on leaving it is asked to end, and must."""
    asked = [sys.executable, "-m", "appliance", "serve", "--config", str(site / "appliance.toml")]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _wait_until_serving(process.stdout or ())
        finally:
            process.terminate()
            process.communicate(timeout=60)
    if process.returncode:
        raise ConfigError(f"the appliance ended with exit code {process.returncode}")


def _wait_until_serving(lines: Iterable[str]) -> dict[str, int]:
    for line in lines:
        event = json.loads(line)
        if event["event"] == "serving":
            return dict(event)
    raise ConfigError("the appliance did not start")


def _show_decisions(groups: dict[str, list[Answer]]) -> None:
    outcomes = Decision.keys()[1:]  # the first one is "unspecified"
    table = Table("what was sent", "images", *outcomes)
    for kind, answers in groups.items():
        counts = Counter(answer.decision for answer in answers)
        table.add_row(kind, str(len(answers)), *[str(counts[name]) for name in outcomes])
    console.print(table)


def _show_metrics(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    shown = ("appliance_calls_total", "appliance_rows_total", "appliance_audit_records_total", "appliance_golden_margin{")
    console.print("\n".join(line for line in lines if line.startswith(shown)))


def _step(sentence: str) -> None:
    console.rule(f"[bold]{sentence}", align="left")


def _appliance(*arguments: str, show: bool = True) -> str:
    return _run([sys.executable, "-m", "appliance", *arguments], None, show=show)


def _run(command: list[str], folder: Path | None, *, show: bool = True) -> str:
    """Runs one of our own commands, shows what it says, and returns it."""
    process = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if show or process.returncode:
        console.print(process.stdout.rstrip(), markup=False, soft_wrap=True)
    if process.returncode:
        raise ConfigError(f"a step of the demo ended with exit code {process.returncode}")
    return process.stdout.rstrip()


def _free_port(wanted: int) -> int:
    """The wanted port if it is free, otherwise any."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
