"""What a site asks of a bundle at one moment, besides its signatures: of its vendor, of its own state, and of the clock."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from appliance import memory
from appliance.bundle import opening
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.opening import Admitted, Genuine, Opened
from appliance.bundle.policy import Policy
from appliance.errors import ApplianceError, NotAdmitted
from appliance.site import Site
from appliance.state import State, Version


@dataclass(frozen=True, slots=True)
class Gate:
    """``now`` is None for a model that goes on after a restart: no date is asked of it (bundle-format section 7)."""

    state: State
    policies: Sequence[Policy]
    key: RecipientKey
    now: datetime | None

    def verify(self, bundle: bytes) -> Genuine:
        """Steps 1 and 2. Raises MalformedBundle, UntrustedSignature, Revoked."""
        return opening.parse(bundle).verify(self.policies)

    def admit(self, genuine: Genuine, permit: bytes, version_min: int = 1) -> Admitted:
        """Step 3, with what ``require`` asks.

        Raises:
            NotAdmitted, Revoked, RolledBack, WrongKey, UntrustedSignature, MalformedBundle
        """
        self.require(genuine.manifest.model.id, genuine.policy.vendor)
        return genuine.admit(permit, self.key, self.now, version_min)

    def unseal(
        self, genuine: Genuine, permit: bytes, version_min: int = 1, *, roles: Collection[str] | None = None
    ) -> Opened:
        """Steps 3 to 5, into locked memory; of ``roles`` alone where they are given.

        Raises:
            what ``admit`` raises, and CorruptPayload
        """
        return self.admit(genuine, permit, version_min).decrypt(memory.secret_buffer, memory.wipe, roles=roles)

    def prove(self, genuine: Genuine, permit: bytes) -> None:
        """Opens every part, and wipes it. Raises what ``unseal`` raises."""
        for part in self.unseal(genuine, permit).parts.values():
            memory.wipe(part)

    def require(self, model: str, vendor: str) -> None:
        """Raises NotAdmitted unless the name is this vendor's here, the clock is to be believed, and its word is fresh."""
        self.state.require_vendor(model, vendor)
        if self.now is not None:
            self.state.require_clock(self.now)
            self.state.vendors[vendor].require_fresh(self.now)


def require_vouched_for(site: Site, policy: Policy, name: str, version: Version) -> None:
    """Whether an installed bundle is still the one that was activated, and its vendor still stands by it.

    Raises:
        BundleError, ConfigError
    """
    genuine = opening.parse(site.find(name, version.version).head()).verify([policy])
    if genuine.digest != version.digest:
        raise NotAdmitted("The installed bundle is not the one that was activated.")
    genuine.require_published()


def answering(site: Site, state: State, name: str, versions_max: int) -> list[Version]:
    """The versions of a model that answer: the active one, first and in any case, and those before it, if vouched for."""
    if name not in state.models:
        return []
    known = state.models[name]

    def is_vouched_for(version: Version) -> bool:
        try:
            require_vouched_for(site, site.policy(state, known.vendor), name, version)
        except ApplianceError:
            return False
        return True

    serving = known.serving[:versions_max]
    return [version for i, version in enumerate(serving) if i == 0 or is_vouched_for(version)]
