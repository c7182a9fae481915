"""The callers: h2load keeps N requests outstanding on one connection, each asked again as soon as one is answered.

It is written in C and does not look into an answer, so it takes little from the machine that it measures. To it, a gRPC
error is a success: status 200, no body, the error in the trailers. So a real gRPC client compares an answer with ONNX
Runtime's before and after, and in between the bytes of the answers must be as many as so many right answers have.

It cannot send a client certificate, which our server wants; ``client_certificate.c``, preloaded, makes it.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import grpc
import numpy as np

from appliance.oip import open_inference_pb2 as oip
from tests.benchmarks.models import INPUT, OUTPUT, Made
from tests.benchmarks.rounds import LOOPS_MIN, Round

METHOD = "/inference.GRPCInferenceService/ModelInfer"
PACKAGE = "nghttp2-client"  # of Debian and Ubuntu; elsewhere nghttp2
MESSAGE_BYTES_MAX = 64 << 20
ANSWER_S_MAX, LOAD_S_MAX = 60.0, 300.0
CHECKS = 3
PREFIX_BYTES = 5  # of a message of gRPC: not compressed, and its length
SPREAD_BYTES = 4  # answers to one request may differ by the length of a number, such as the index in the log


class Unmeasurable(Exception):
    """A sentence that says why there is no figure."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where a server of this machine takes calls; with mutual TLS if there is a folder of certificates."""

    port: int
    certificates: Path | None = None

    def channel(self) -> grpc.Channel:
        options = [(f"grpc.max_{way}_message_length", MESSAGE_BYTES_MAX) for way in ("send", "receive")]
        if self.certificates is None:
            return grpc.insecure_channel(f"127.0.0.1:{self.port}", options)
        pem = [(self.certificates / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt")]
        return grpc.secure_channel(f"localhost:{self.port}", grpc.ssl_channel_credentials(*pem), options)


@dataclass(frozen=True, slots=True)
class Told:
    """What h2load says in the end: answers it had whole, how many of them had status 200, and bytes of all bodies."""

    done: int
    succeeded: int
    body_bytes: int


def message(made: Made, rows: int) -> bytes:
    """A serialised request for the logits of so many rows."""
    given = made.rows(rows)
    request = oip.ModelInferRequest(model_name=made.network.name, raw_input_contents=[given.tobytes()])
    request.inputs.add(name=INPUT, datatype=made.network.datatype, shape=given.shape)
    request.outputs.add(name=OUTPUT)
    return request.SerializeToString()


def check(made: Made, rows: int, answer: bytes) -> None:
    """Raises Unmeasurable unless the answer is ONNX Runtime's own: speed without it is worth nothing."""
    response = oip.ModelInferResponse.FromString(answer)
    names = [output.name for output in response.outputs]
    raw = response.raw_output_contents
    logits = np.frombuffer(raw[names.index(OUTPUT)], "<f4") if OUTPUT in names and len(raw) == len(names) else np.empty(0)
    wanted = made.answers(rows)
    if logits.size != wanted.size or not np.allclose(
        logits.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max()
    ):
        raise Unmeasurable(f"The answer for {rows} rows of {made.network.name} is not ONNX Runtime's.")


def ask(door: Door, made: Made, rows: int, times: int = 1) -> tuple[list[int], float]:
    """The sizes of the answers, in bytes, and the shortest time, in seconds. Raises Unmeasurable, grpc.RpcError."""
    asked, sizes, took = message(made, rows), [], []
    with door.channel() as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        for _ in range(times):
            began = perf_counter()
            answer = call(asked, timeout=ANSWER_S_MAX)
            took.append(perf_counter() - began)
            check(made, rows, answer)
            sizes.append(len(answer))
    return sizes, min(took)


def measure(door: Door, made: Made, rows: int, at_once: int, warm_s: float, seconds: float) -> Round:
    """Raises Unmeasurable where an answer was wrong or missing."""
    try:
        before, took = ask(door, made, rows, CHECKS)
        asked = message(made, rows)
        # A fixed number of calls, not a fixed time, so that none is broken off in the end: a peer may not survive that.
        _, warming = _load(door, asked, at_once, max(2 * at_once, round(warm_s / took)))
        told, requests = _load(door, asked, at_once, max(LOOPS_MIN * at_once, round(seconds * per_s(warming))))
        after, _ = ask(door, made, rows)
    except grpc.RpcError as error:
        raise Unmeasurable(f"A call failed: {error.code().name} {error.details()}") from None
    require_answers(told, before + after)
    return Round.of(requests, rows, window(requests, at_once))


def per_s(requests: Sequence[tuple[float, float]]) -> float:
    return len(requests) / (max(after for _, after in requests) - min(before for before, _ in requests))


def window(requests: Sequence[tuple[float, float]], at_once: int) -> tuple[float, float]:
    """From when as many were answered as are outstanding at once, until the last was asked: always as many outstanding."""
    begin, end = sorted(after for _, after in requests)[at_once - 1], max(before for before, _ in requests)
    if end <= begin:
        raise Unmeasurable("There were too few calls to measure.")
    return begin, end


def require_answers(told: Told, sizes: Sequence[int]) -> None:
    """Raises Unmeasurable unless the bytes are those of right answers, each with a prefix of five.

    ``sizes`` are those of right answers before and after. Where all are alike, one error among a million shows.
    """
    if not told.done or told.succeeded != told.done:
        raise Unmeasurable(f"Of {told.done} calls, {told.done - told.succeeded} had another HTTP status than 200.")
    spread = SPREAD_BYTES if len(set(sizes)) > 1 else 0
    if not min(sizes) - spread <= told.body_bytes / told.done - PREFIX_BYTES <= max(sizes) + spread:
        raise Unmeasurable(f"{told.done} answers of {min(sizes)} bytes had {told.body_bytes} in all: some were errors.")


def parse_told(text: str) -> Told:
    requests = re.search(r"^requests: .*?(\d+) done, (\d+) succeeded", text, re.M)
    body = re.search(r"^traffic: .*\((\d+)\) data$", text, re.M)
    if requests is None or body is None:
        raise Unmeasurable(f"h2load said nothing of use: {text.strip()[-200:]}")
    return Told(int(requests[1]), int(requests[2]), int(body[1]))


def parse_log(text: str) -> list[tuple[float, float]]:
    """When each request was asked and answered, in seconds. A line is its start in µs, the HTTP status, and how many µs."""
    found = []
    for line in text.splitlines():
        start, _, took = map(int, line.split("\t")[:3])
        found.append((start / 1e6, (start + took) / 1e6))
    return found


def _load(door: Door, asked: bytes, at_once: int, calls: int) -> tuple[Told, list[tuple[float, float]]]:
    with tempfile.TemporaryDirectory() as name:
        body, log = Path(name, "request"), Path(name, "log")
        body.write_bytes(len(asked).to_bytes(PREFIX_BYTES, "big") + asked)
        command = ["h2load", "-c", "1", "-m", str(at_once), "-n", str(calls), "-w", "24", "-W", "24", "-d", str(body)]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers", "--log-file", str(log)]
        if door.certificates is None:
            environment, url = dict(os.environ), f"http://127.0.0.1:{door.port}{METHOD}"
        else:
            environment, url = _with_certificate(door.certificates), f"https://localhost:{door.port}{METHOD}"
        try:
            done = subprocess.run(
                [*command, url], env=environment, capture_output=True, text=True, timeout=LOAD_S_MAX, check=False
            )
        except subprocess.TimeoutExpired:
            raise Unmeasurable(f"{calls} calls were not answered within {LOAD_S_MAX:g} s.") from None
        told, requests = parse_told(done.stdout + done.stderr), parse_log(log.read_text())
        if told.done < calls:
            raise Unmeasurable(f"Only {told.done} of {calls} calls were answered.")
        return told, requests


def _with_certificate(folder: Path) -> dict[str, str]:
    return os.environ | {
        "LD_PRELOAD": str(library()),
        "CLIENT_CERTIFICATE": str(folder / "client.crt"),
        "CLIENT_KEY": str(folder / "client.key"),
    }


def library() -> Path:
    """Compiled when it is first wanted. Raises OSError or CalledProcessError where there is no C compiler."""
    source = Path(__file__).with_name("client_certificate.c")
    made = source.parents[2] / "build" / "client_certificate.so"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        made.parent.mkdir(exist_ok=True)
        command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(made), str(source), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
    return made
