"""A vendor's desk for tests: what is on it, and its command line run in this process."""

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from appliance.bundle.manifest import Manifest
from export import cli, keys
from export.graph import Graph
from export.session import GraphSession

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"


EVERY_ROLE = [word for role in keys.ROLES for word in ("--role", role)]


@dataclass(frozen=True)
class Desk:
    """A vendor's desk: a trained example, keys, and a bundle built by the command line."""

    data: Path
    keys: Path
    passphrase: Path
    bundle: Path

    @property
    def repository(self) -> Path:
        """The trust repository in which the bundle is published."""
        return self.bundle.with_name("repository")

    @property
    def build_options(self) -> list[str]:
        return ["--key", str(self.keys / "exporter.key"), "--passphrase-file", str(self.passphrase)]


@dataclass(frozen=True)
class Opened:
    manifest: Manifest
    digest: str
    content_key: bytes
    parts: dict[str, bytes]

    @property
    def graph(self) -> Graph:
        return Graph(self.parts["graph"], self.parts["weights"])

    def session(self) -> GraphSession:
        return GraphSession(self.graph)


def run_command(*arguments: object, answer: str = "") -> tuple[int, str, str]:
    """``python -m export …`` in this process: the exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["export", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.StringIO(answer)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()
