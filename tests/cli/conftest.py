"""One site for the commands that only look, made by the commands themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appliance.bundle import enrolment, grant
from appliance.bundle.enrolment import Recipient
from appliance.cli.authority import Authority
from export.trust import Repository
from tests.cli.running import Ran, run
from tests.forge import Forge


@dataclass
class Enrolled:
    """A site that was made by ``init`` and ``enroll``, and the vendor whose repository it has taken in."""

    root: Path
    forge: Forge
    repository: Repository
    medium: Path
    recipient: Recipient
    bundle: Path
    grant: Path
    said: list[Ran]

    def publish(self, copy: Path) -> None:
        """Lets the vendor publish all that it has sealed by now, and a copy of the site take that in."""
        self.forge.say(self.repository)
        ran = run("trust", "update", "--site", copy, self.medium)
        assert (ran.code, ran.err) == (0, "")

    def permit(self, bundle: bytes, **changes: object) -> bytes:
        """A grant for this site, good today."""
        now = datetime.now(UTC).replace(microsecond=0)
        dates = {"not_before": now - timedelta(days=1), "not_after": now + timedelta(days=90)}
        terms = self.forge.terms(bundle, **({"recipient": self.recipient.digest} | dates | changes))
        return grant.issue(terms, self.forge.content_key, self.recipient, [self.forge.licensing])


@pytest.fixture(scope="session")
def enroll() -> Callable[[Path], Enrolled]:
    """init → enroll → trust update → a bundle and its grant as files; nothing installed."""

    def make(folder: Path) -> Enrolled:
        root, vendor, medium = folder / "site", Forge(), folder / "repository"
        bundle, grant = folder / "model.bundle", folder / "model.grant"
        bundle.write_bytes(vendor.bundle())
        repository = vendor.repository(medium)
        said = [run("init", root, "--name", 'A "quoted" hôpital', "--dns", "appliance.example")]
        said.append(run("enroll", "--site", root))
        Authority().server(root / "tls")
        said.append(run("trust", "update", "--site", root, medium, "--fingerprint", repository.root_fingerprint))
        recipient = enrolment.read((root / "enrolment.json").read_bytes()).recipient
        made = Enrolled(root, vendor, repository, medium, recipient, bundle, grant, said)
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
