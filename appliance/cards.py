"""The model card of a version that is installed and does not answer: what people read before they activate it.

A card is a part of its bundle like the weights are, so reading it is steps 1 to 5 of the order of trust (bundle-format
section 7), with the card alone decrypted, into locked memory, and on record. No date is asked of it: nothing answers by it.
The card of a version that answers is in memory already, and is its ``LoadedModel``'s.

It changes nothing, so it does not take the place of an act: the whole of a bundle is read and hashed, which takes long, and
whoever deactivates a model meanwhile is in a hurry.
"""

import asyncio
from dataclasses import dataclass

from appliance import memory
from appliance.access import Caller
from appliance.acts import Acts
from appliance.bundle.enrolment import RecipientKey
from appliance.errors import ConfigError, NotAdmitted, Overloaded
from appliance.gate import Gate
from appliance.load import LoadedModel, read_card
from appliance.site import Installed, Site, repeated


@dataclass(frozen=True, slots=True)
class Card:
    """``text`` is Markdown; ``digest`` names the model version that it tells of."""

    name: str
    version: int
    digest: str
    text: str

    @classmethod
    def of(cls, model: LoadedModel) -> "Card":
        return cls(model.name, model.version, model.digest, model.card)


class Cards:
    """The cards of one site's bundles. One is read at a time: each reading has a whole bundle in memory."""

    def __init__(self, acts: Acts, site: Site, key: RecipientKey) -> None:
        self._acts, self._site, self._key = acts, site, key
        self._reading = asyncio.Lock()

    async def read(self, by: Caller, name: str, version: int, request_id: str | None = None) -> Card:
        """Version 0 is the active one.

        Raises:
            Overloaded: another is being read.
            ConfigError: it is not installed, or none is active.
            BundleError, StateError: it is not good. Nothing of it is shown.
            AuditUnavailable: no record can be written.
        """
        if self._reading.locked():
            raise Overloaded("Another card is being read here; try again when that has ended.")
        async with self._reading, self._acts.journal.entry("model.card", request_id=request_id) as entry:
            entry.caller = by.on_record()
            by.authorise_model(name)
            installed = self._site.find(name, version or self._active(name))
            entry.model = {"id": installed.name, "version": installed.version}
            policies = await asyncio.to_thread(self._acts.policies)
            card = await asyncio.to_thread(_open, Gate(self._acts.state, policies, self._key, None), installed)
            entry.model["digest"] = card.digest
        return card

    def _active(self, name: str) -> int:
        known = self._acts.state.models.get(name)
        if known is None or not known.serving:
            raise ConfigError(f"{repeated(name)} is not active: give a version that is installed")
        return known.serving[0].version


def _open(gate: Gate, installed: Installed) -> Card:
    genuine = gate.verify(installed.read())
    model = genuine.manifest.model
    if (model.id, model.version) != (installed.name, installed.version):
        raise NotAdmitted("The bundle is not the one that was installed under this name and version.")
    parts = gate.unseal(genuine, installed.permit(), roles={"card"}).parts
    try:
        return Card(model.id, model.version, genuine.digest, read_card(parts["card"]))
    finally:
        for part in parts.values():
            memory.wipe(part)
