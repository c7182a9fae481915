"""Life of a model.

::

    chest-3.bundle ═▶ parse ─▶ verify ─▶ admit ─▶ hash ─▶ decrypt in memory                      bundle/opening.py
                  ─▶ inspect the graph ─▶ session (provider asked == provider got) ─▶ warm, measured
                  ─▶ replay the golden cases here ─▶ LoadedModel                                 this file
                  ─▶ record ─▶ switch                                                            registry.py

Nothing decrypted is written anywhere. Plaintext stands in buffers that are locked in memory and zeroed after use; the
weights' as soon as the session has its own copy. Whoever holds a ``LoadedModel`` holds one that has reproduced its
vendor's answers on this machine. Who may load which version, and when, is the story of ``registry.py``.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace

from appliance import memory
from appliance.bundle.grant import Terms
from appliance.bundle.manifest import CARD_BYTES_MAX, E6, Manifest
from appliance.bundle.opening import Buffer, Opened
from appliance.engine import graph
from appliance.engine.session import Hardware, Session, open_session
from appliance.errors import FailedGoldenCase, InvalidInput, MalformedBundle
from appliance.model import inputs, unknown
from appliance.model.decision import Judge
from appliance.model.golden import GoldenCases
from appliance.model.inputs import Content
from appliance.override import AS_SIGNED, Override


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that may serve. ``card`` is its model card, in Markdown.

    ``judge`` goes by the signed rule but for the thresholds that the site has in the place of its own, ``override``.
    ``golden_margin`` is the largest |Δlogit| of its golden cases here.
    ``load_s`` are the seconds from its file to here, as far as whoever loaded it has counted them.
    """

    manifest: Manifest
    digest: str
    vendor: str
    terms: Terms
    session: Session
    judge: Judge
    card: str
    golden_margin: float
    load_s: float = 0.0
    override: Override = AS_SIGNED

    @property
    def name(self) -> str:
        return self.manifest.model.id

    @property
    def version(self) -> int:
        return self.manifest.model.version

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs a caller may ask for, in order."""
        names = ("probabilities", "logits", "label", "decision")
        return names if self.judge.rule.unknown is None else (*names, "distance")

    def ruled(self, override: Override) -> "LoadedModel":
        """The same model, deciding by these thresholds where they are not as signed."""
        return replace(self, judge=replace(self.judge, rule=override.over(self.manifest.decision)), override=override)

    def arrange(self, given: Sequence[tuple[str, Content]]) -> tuple[Content, ...]:
        """What was given to each input, in the manifest's order; a single input need not be named. All have as many rows.

        Raises:
            InvalidInput: not exactly the model's inputs, not as many rows to each, or texts to one that takes images.
        """
        specs = self.manifest.inputs
        named = dict(given)
        if len(specs) == len(given) == 1 and "" in named:
            named = {specs[0].name: named[""]}
        if len(named) != len(given) or named.keys() != {spec.name for spec in specs}:
            raise InvalidInput(f"This model's inputs are {', '.join(spec.name for spec in specs)}, each given once.")
        contents = tuple(named[spec.name] for spec in specs)
        for spec, content in zip(specs, contents, strict=True):
            inputs.require_kind(spec, content)
        if len({content.rows for content in contents}) != 1:
            raise InvalidInput("The inputs must have as many rows each.")
        return contents

    def require(self, outputs: frozenset[str]) -> None:
        """Raises InvalidInput where a caller names an output that the model does not have."""
        if not outputs <= set(self.outputs):
            raise InvalidInput(f"This model's outputs are {', '.join(self.outputs)}.")


def load(opened: Opened, hardware: Hardware) -> LoadedModel:
    """Steps 6 to 8: makes a decrypted bundle ready to serve, and wipes it. Blocks; takes seconds for a large model.

    Raises:
        BundleError: which one says at which step it was refused.
        ConfigError: this machine lacks the provider it needs.
    """
    manifest, parts = opened.manifest, dict(opened.parts)
    try:
        weights = parts.pop("weights")
        try:
            graph.inspect(parts["graph"], manifest, len(weights))
            session = open_session(manifest, parts["graph"], weights, hardware, opened.terms.workers_max)
        finally:
            memory.wipe(weights)
        judge, card = _judge(opened), read_card(parts["card"])
        margin = _replay(opened, session, judge)
    finally:
        for part in parts.values():
            memory.wipe(part)
    gc.collect()
    gc.freeze()  # what a model is made of lives as long as the process: the collector need not walk it at every request
    return LoadedModel(manifest, opened.digest, opened.vendor, opened.terms, session, judge, card, margin)


def _replay(opened: Opened, session: Session, judge: Judge) -> float:
    """Runs the golden cases through the whole path of a request. Raises FailedGoldenCase."""
    manifest = opened.manifest
    cases = GoldenCases.decode(opened.parts["selftest"], manifest.golden.cases, len(manifest.labels), manifest.inputs)
    margin = 0.0
    for i, case in enumerate(cases.cases):
        try:
            outputs = session.run(tuple(map(inputs.read, manifest.inputs, case)))
            judge.judge(outputs.logits, outputs.embedding)
        except Exception as error:  # the case, the graph or the reference; the runtime's exceptions have no common base
            raise FailedGoldenCase("A golden case cannot be answered on this machine.") from error
        margin = max(margin, cases.check(i, outputs.logits[0], manifest.golden.logit_tolerance_e6 / E6))
    return margin


def _judge(opened: Opened) -> Judge:
    rule, reference = opened.manifest.decision, opened.parts.get("reference")
    if rule.unknown is None or reference is None:
        return Judge(rule, None)
    return Judge(rule, unknown.decode(rule.unknown.method, reference, len(opened.manifest.labels)))


def read_card(part: Buffer) -> str:
    """The Markdown of a card part. Raises MalformedBundle."""
    if len(part) > CARD_BYTES_MAX:
        raise MalformedBundle(f"The model card has more than {CARD_BYTES_MAX} bytes.")
    try:
        return str(part, "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedBundle("The model card is not UTF-8.") from error
