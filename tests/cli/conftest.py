"""One site for the commands that only look, made by the commands themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.bundle import enrolment, grant
from appliance.bundle.enrolment import Recipient
from appliance.cli.authority import Authority
from tests.cli.running import Ran, run
from tests.forge import Forge


@dataclass
class Enrolled:
    """A site that was made by ``init`` and ``enroll``, and the vendor whose keys it trusts."""

    root: Path
    forge: Forge
    recipient: Recipient
    bundle: Path
    grant: Path
    said: list[Ran]

    def permit(self, bundle: bytes, **changes: object) -> bytes:
        """A grant for this site, good today."""
        now = datetime.now(UTC).replace(microsecond=0)
        dates = {"not_before": now - timedelta(days=1), "not_after": now + timedelta(days=90)}
        terms = self.forge.terms(bundle, **({"recipient": self.recipient.digest} | dates | changes))
        return grant.issue(terms, self.forge.content_key, self.recipient, self.forge.licensing)


@pytest.fixture(scope="session")
def enroll() -> Callable[[Path], Enrolled]:
    """init → enroll → trust → a bundle and its grant as files; nothing installed."""

    def make(folder: Path) -> Enrolled:
        root, vendor = folder / "site", Forge()
        said = [run("init", root, "--name", 'A "quoted" hôpital', "--dns", "appliance.example")]
        said.append(run("enroll", "--site", root))
        Authority().server(root / "tls")
        for role, key in (("exporter", vendor.exporter), ("licensing", vendor.licensing)):
            form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            (root / "trust" / role / "vendor.pem").write_bytes(key.public_key().public_bytes(*form))
        recipient = enrolment.read((root / "enrolment.json").read_bytes()).recipient
        made = Enrolled(root, vendor, recipient, folder / "model.bundle", folder / "model.grant", said)
        made.bundle.write_bytes(vendor.bundle())
        made.grant.write_bytes(made.permit(made.bundle.read_bytes()))
        return made

    return make


@pytest.fixture(scope="session")
def site(enroll: Callable[[Path], Enrolled], tmp_path_factory: pytest.TempPathFactory) -> Enrolled:
    """A site with one model installed and active. Tests that share it only look."""
    made = enroll(tmp_path_factory.mktemp("cli"))
    made.said.append(run("models", "install", "--site", made.root, "--bundle", made.bundle, "--grant", made.grant))
    made.said.append(run("models", "activate", "forged", 1, "--site", made.root))
    return made
