"""What an operator does with models and vendors: install, activate, roll back, set a threshold, take in a vendor's word.

::

    operator ─▶ act ─▶ gate (vendor, clock, freshness, version, grant) ─▶ load ═▶ record ─▶ remember ─▶ switch
                 └──────────── whatever is refused leaves what serves as it was ────────┘

The same code runs in the appliance, where the next call sees a switch, and in the command line of a site whose appliance is
stopped, where the next start sees it. No date ever stops a model that serves.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from time import perf_counter

from appliance.access import Caller
from appliance.acts import Acts
from appliance.audit.record import Entry
from appliance.bundle import grant, manifest, opening
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.grant import Terms
from appliance.bundle.manifest import E6
from appliance.bundle.opening import Genuine, Opened
from appliance.bundle.policy import Policy
from appliance.canonical import is_fingerprint
from appliance.cards import Cards
from appliance.engine.session import Hardware
from appliance.errors import ApplianceError, ConfigError, NewVendor, NotAdmitted, StateError
from appliance.gate import Gate
from appliance.load import LoadedModel, load
from appliance.override import AS_SIGNED, Override
from appliance.servables import Servables
from appliance.site import Installed, Site, repeated
from appliance.state import VendorState, Version, trust_detail

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InstalledModel:
    name: str
    version: int
    digest: str


class Registry:
    """The models and vendors of one site; ``cards`` reads what is said of a model that does not answer."""

    def __init__(
        self,
        acts: Acts,
        site: Site,
        key: RecipientKey,
        hardware: Hardware,
        *,
        servables: Servables | None = None,
    ) -> None:
        self.acts, self.cards = acts, Cards(acts, site, key)
        self._site, self._key, self._hardware = site, key, hardware
        self._servables = servables

    # --- models ------------------------------------------------------------------------------------------------------

    async def install(self, by: Caller, bundle: Path, permit: bytes, request_id: str | None = None) -> InstalledModel:
        """Verifies a bundle that lies in the site's ``incoming`` and its grant, steps 1 to 5, and puts them in place.

        Raises:
            BundleError, ConfigError, StateError
        """
        async with self.acts.act("model.install", by, request_id) as act:
            gate = await self._gate(act.now)
            data = await asyncio.to_thread(bundle.read_bytes)
            genuine = gate.verify(data)
            model = genuine.manifest.model
            act.entry.model = {"id": model.id, "version": model.version, "digest": genuine.digest}
            by.authorise_model(model.id)
            self._require_no_other(genuine)
            await asyncio.to_thread(gate.prove, genuine, permit)
            act.then = partial(self._site.install, model.id, model.version, bundle, permit)
        return InstalledModel(model.id, model.version, genuine.digest)

    async def renew(self, by: Caller, permit: bytes, request_id: str | None = None) -> Terms:
        """Puts another grant in the place of an installed bundle's, whether that serves or not.

        Raises:
            BundleError, ConfigError, StateError
        """
        async with self.acts.act("model.renew", by, request_id) as act:
            gate = await self._gate(act.now)
            terms = grant.read(permit, gate.policies).terms
            act.entry.model = {"id": terms.model, "version": terms.version, "digest": terms.manifest_sha256}
            by.authorise_model(terms.model)
            installed = self._site.find(terms.model, terms.version)
            gate.admit(gate.verify(installed.head()), permit)
            act.then = partial(self._site.renew, installed, permit)
        if self._servables:
            self._servables.renew(terms.manifest_sha256, terms)
        return terms

    async def activate(self, by: Caller, name: str, version: int, request_id: str | None = None) -> LoadedModel:
        """Makes an installed version the one that answers; never one that is older than any that did.

        Raises:
            BundleError: which one says at which step it was refused. What served serves on.
            ConfigError, StateError
        """
        async with self.acts.act("model.activate", by, request_id) as act:
            by.authorise_model(name)
            gate = await self._gate(act.now)
            model = await self._load(act.entry, gate, name, version, self.acts.state.highest(name))
        self._switch(model)
        return model

    async def roll_back(
        self, by: Caller, name: str, version: int, reason: str, request_id: str | None = None
    ) -> LoadedModel:
        """Makes an older version answer again, on purpose. Newer ones then answer nobody.

        Raises:
            RolledBack: the version is lower than its vendor still supports.
            BundleError, ConfigError, StateError
        """
        async with self.acts.act("model.rollback", by, request_id, reason) as act:
            by.authorise_model(name)
            known = self.acts.state.models.get(name)
            if known is None or version >= known.highest:
                raise ConfigError(
                    f"version {version} of {name[:64]} is not older than one that was active: activate it instead"
                )
            gate = await self._gate(act.now)
            model = await self._load(act.entry, gate, name, version, known.floor)
        self._switch(model)
        return model

    async def deactivate(self, by: Caller, name: str, reason: str, request_id: str | None = None) -> None:
        """Lets a model answer nobody any more, in any version. Raises ConfigError where it does not serve."""
        async with self.acts.act("model.deactivate", by, request_id, reason) as act:
            by.authorise_model(name)
            if name not in self.acts.state.models or not self.acts.state.models[name].serving:
                raise ConfigError(f"{repeated(name)} is not active")
            act.entry.model = {"id": name}
        if self._servables:
            self._servables.keep(name, ())

    async def set_threshold(
        self,
        by: Caller,
        name: str,
        version: int,
        wanted: Override,
        reason: str,
        *,
        as_signed: bool = False,
        request_id: str | None = None,
    ) -> Override:
        """Lets a version that serves decide by other thresholds than its vendor has signed, or by those again.

        What is not wanted otherwise stays as it is. The signed ones are given back to any version that is remembered: one
        that answers nobody today answers once more versions are kept. Returns what is not as signed from now on.

        Raises:
            ConfigError: it does not serve, or the model cannot have such a threshold.
            BundleError: what is installed is not what serves.
            StateError
        """
        async with self.acts.act("model.threshold", by, request_id, reason) as act:
            by.authorise_model(name)
            serves, override = self._serving(name, version, remembered=as_signed), AS_SIGNED
            act.entry.model = {"id": name, "version": version, "digest": serves.digest}
            if as_signed == bool(wanted):
                raise ConfigError(
                    "say which thresholds are to count: one or two of this site's own, or those that are signed"
                )
            if wanted:
                gate = await self._gate(act.now)
                genuine = gate.verify(self._site.find(name, version).head())
                if genuine.digest != serves.digest:
                    raise NotAdmitted("The installed bundle is not the one that was activated.")
                override = serves.override.then(wanted, genuine.manifest.decision)
            act.entry.tell(**override.encode())
        if self._servables:
            self._servables.rule(serves.digest, override)
        return override

    async def remove(self, by: Caller, name: str, version: int, request_id: str | None = None) -> None:
        """Deletes the files of a version that does not serve. Raises ConfigError where it does, or is not installed."""
        async with self.acts.act("model.remove", by, request_id) as act:
            by.authorise_model(name)
            installed = self._site.find(name, version)
            act.entry.model = {"id": name, "version": version}
            if any(version == found.version for found in self.acts.answering(name)):
                raise ConfigError(f"version {version} of {name} serves")
            act.then = partial(self._site.remove, installed)

    async def resume(self) -> list[ApplianceError]:
        """Lets what served when the appliance stopped serve again; returns why the active versions that are refused are.

        Where an active version is refused, none takes its place.
        """
        assert self._servables is not None  # noqa: S101
        refusals: list[ApplianceError] = []
        for name, remembered in self.acts.state.models.items():
            for version in remembered.serving[: self.acts.versions_max]:
                active = version == remembered.serving[0]
                try:
                    async with self.acts.journal.entry("model.load") as entry:
                        entry.model = {"id": name, "version": version.version}
                        policy = self._site.policy(self.acts.state, remembered.vendor)
                        gate = Gate(self.acts.state, (policy,), self._key, None)
                        model = await self._load(entry, gate, name, version.version, 1, version.digest)
                except Exception as error:  # of one model; the others are to serve
                    trace = not isinstance(error, ApplianceError)
                    log.error("model %s version %d is refused: %s", name, version.version, error, exc_info=trace)
                    if active:
                        refusals.append(_without_traces(error))
                else:
                    self._servables.put(model.ruled(version.override), active=active)
        return refusals

    # --- vendors -----------------------------------------------------------------------------------------------------

    async def update_trust(
        self, by: Caller, medium: Mapping[str, bytes], fingerprint: str = "", request_id: str | None = None
    ) -> tuple[str, VendorState]:
        """Takes in a vendor's trust repository. A vendor that is new here needs the fingerprint of its first root.

        Versions that it revokes end at once, but for an active one: that is for people to replace, and an alarm says so.

        Raises:
            NewVendor: the vendor is new here, and nobody has compared its fingerprint.
            BundleError: it is not the vendor's, is older than what was seen, or is not valid. What was trusted stays.
            StateError
        """
        from appliance import trust  # python-tuf brings an HTTP client: a process that takes in no repository loads none

        async with self.acts.act("trust.update", by, request_id) as act:
            by.authorise_every_model()
            self.acts.state.require_clock(act.now)
            root, vendors = trust.root_of(medium), self.acts.state.vendors
            name = next((name for name, v in vendors.items() if v.first_root_sha256 == trust.root_digest(root)), None)
            expected = trust.root_fingerprint(root)
            if fingerprint and not is_fingerprint(fingerprint, expected):
                raise NotAdmitted(f"The fingerprint of this vendor's root is {expected}, which is not the one given.")
            if name is None and not fingerprint:
                raise NewVendor(f"This vendor is new here, and the fingerprint of its root is {expected}.")
            known = None if name is None else vendors[name]
            new = await asyncio.to_thread(trust.refresh, self._site.incoming, medium, known)
            await asyncio.to_thread(self._require_consistent, new.policy, name)
            await asyncio.to_thread(self._site.write_policy, new.policy.vendor, new.vendor, new.policy_bytes)
            act.entry.detail = trust_detail(new.policy.vendor, new.vendor)
        for model in self.acts.state.models:
            self._keep(model)
        self._site.drop_old_policies(new.policy.vendor, new.vendor)
        return new.policy.vendor, new.vendor

    def _require_consistent(self, new: Policy, name: str | None) -> None:
        """Raises NotAdmitted where two vendors would have one name or one key, or a vendor another name than before; and
        RolledBack where something is no longer revoked.
        """
        others = self.acts.state.vendors.keys() - {name}
        if new.vendor in others:
            raise NotAdmitted("A vendor of this name is known here by another root.")
        if name not in (None, new.vendor):
            raise NotAdmitted("The trust repository is in another vendor's name than before.")
        keys = {*new.exporter.keys, *new.licensing.keys}
        for other in others:
            with suppress(StateError):  # a policy that is damaged is for its own repository to mend
                there = self._site.policy(self.acts.state, other)
                if keys & {*there.exporter.keys, *there.licensing.keys}:
                    raise NotAdmitted(f"The trust repository names a key that is {other}'s here, another vendor's.")
        if name is not None:
            with suppress(StateError):  # as above: then nobody knows any more what was revoked
                new.require_revoked_still(self._site.policy(self.acts.state, name))

    # -----------------------------------------------------------------------------------------------------------------

    async def _gate(self, now: datetime | None) -> Gate:
        return Gate(self.acts.state, await asyncio.to_thread(self.acts.policies), self._key, now)

    def _serving(self, name: str, version: int, *, remembered: bool) -> Version:
        """``remembered``: or is only remembered. Raises ConfigError where a version does not serve."""
        known = self.acts.state.models.get(name)
        among = known.serving if remembered and known else self.acts.answering(name)
        for found in among:
            if found.version == version:
                return found
        raise ConfigError(f"version {version} of {repeated(name)} does not serve")

    def _require_no_other(self, genuine: Genuine) -> None:
        """Raises NotAdmitted where another bundle is installed as this one's version; the same may have other signatures."""
        model = genuine.manifest.model
        try:
            there = opening.parse(self._site.find(model.id, model.version).head()).envelope
        except ApplianceError:
            return  # nothing is there, or something that this mends
        if manifest.digest(there.payload) != genuine.digest:
            raise NotAdmitted("Another bundle of this model and version is installed already.")

    async def _load(
        self, entry: Entry, gate: Gate, name: str, version: int, version_min: int, digest: str | None = None
    ) -> LoadedModel:
        """``digest`` is the one that served, of a model that goes on."""
        installed, started = self._site.find(name, version), perf_counter()
        entry.model = {"id": name, "version": version}  # not before: what is not installed may be any text
        model = await asyncio.to_thread(lambda: load(_unseal(gate, installed, version_min, digest), self._hardware))
        entry.model["digest"] = model.digest
        entry.tell(
            golden_margin_e6=round(model.golden_margin * E6),
            min_supported_version=model.manifest.model.min_supported_version,
            provider=model.session.provider,
            vendor=model.vendor,
        )
        return replace(model, load_s=perf_counter() - started)

    def _switch(self, model: LoadedModel) -> None:
        if self._servables:
            self._servables.put(model, active=True)
        self._keep(model.name)

    def _keep(self, name: str) -> None:
        """Ends what is no longer among the newest few, and what is not active and no longer vouched for."""
        if self._servables:
            self._servables.keep(name, [version.version for version in self.acts.answering(name)])


def _without_traces(error: Exception) -> ApplianceError:
    """The same refusal, without the frames that it came through: they hold what was decrypted."""
    return type(error)(str(error)) if isinstance(error, ApplianceError) else NotAdmitted("This machine cannot load it.")


def _unseal(gate: Gate, installed: Installed, version_min: int, digest: str | None) -> Opened:
    """Steps 1 to 5, into locked memory. The bundle's own bytes are let go before anything is loaded from it."""
    genuine = gate.verify(installed.read())
    model = genuine.manifest.model
    if (model.id, model.version) != (installed.name, installed.version) or digest not in (None, genuine.digest):
        raise NotAdmitted("The bundle is not the one that was installed under this name and version.")
    return gate.unseal(genuine, installed.permit(), version_min)
