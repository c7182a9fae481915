"""Thresholds of a site's own, in the place of those that the vendor has signed for a model.

An override is an act of an operator, with a reason, on record before it takes effect (registry.py), and remembered with the
version that it is for (state.py). There is no other way: no setting has a threshold. In a record and in ``state.json`` it is
what is not as signed, and no more::

    {"accept_at_least_e6":800000,"reject_above_e6":3200000}

What a threshold is compared with is never overridden: the score, the distance and the temperature are the vendor's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from appliance.bundle.manifest import DISTANCE_E6_MAX, E6, SCORE_E6_MAX, DecisionRule
from appliance.errors import ConfigError

# The least and the greatest threshold of each score in millionths: what the score can be, or what a manifest may say.
_SCORES = {
    **dict.fromkeys(("max_probability", "margin", "top_two"), (0, E6)),
    "entropy": (-12 * E6, 0),  # of 100,000 classes it is -11.5 at the least
    "gen": (-100 * E6, 0),  # of which it looks at 100
}


@dataclass(frozen=True, slots=True)
class Override:
    """What is None is as signed."""

    accept_at_least_e6: int | None = None
    reject_above_e6: int | None = None

    def __bool__(self) -> bool:
        return self != AS_SIGNED

    def __str__(self) -> str:
        said = []
        if self.accept_at_least_e6 is not None:
            said.append(f"accepts at {number(self.accept_at_least_e6)} or more")
        if self.reject_above_e6 is not None:
            said.append(f"takes for unknown above {number(self.reject_above_e6)}")
        return " and ".join(said) or "decides as signed"

    def then(self, later: "Override", rule: DecisionRule) -> "Override":
        """Both, where the later one counts; what comes to be as ``rule``, the signed one, is no override any more.

        Raises:
            ConfigError: the later one is of something that the rule does not have, or no threshold can be so.
        """
        accept, reject = later.accept_at_least_e6, later.reject_above_e6
        if accept is not None:
            low, high = _SCORES.get(rule.accept.score, (-SCORE_E6_MAX, SCORE_E6_MAX))
            if not low <= accept <= high:
                raise ConfigError(f"a threshold of {rule.accept.score} is from {number(low)} to {number(high)}")
        if reject is not None:
            if rule.unknown is None:
                raise ConfigError("this model does not tell unknown inputs, so it has no threshold for them")
            if abs(reject) > DISTANCE_E6_MAX:
                raise ConfigError(f"a distance is from {number(-DISTANCE_E6_MAX)} to {number(DISTANCE_E6_MAX)}")
        accept = self.accept_at_least_e6 if accept is None else accept
        reject = self.reject_above_e6 if reject is None else reject
        return Override(
            None if accept == rule.accept.at_least_e6 else accept,
            None if rule.unknown is None or reject == rule.unknown.reject_above_e6 else reject,
        )

    def over(self, rule: DecisionRule) -> DecisionRule:
        """The rule that decides, of the signed one."""
        accept, unknown = rule.accept, rule.unknown
        if self.accept_at_least_e6 is not None:
            accept = replace(accept, at_least_e6=self.accept_at_least_e6)
        if self.reject_above_e6 is not None and unknown is not None:
            unknown = replace(unknown, reject_above_e6=self.reject_above_e6)
        return replace(rule, accept=accept, unknown=unknown)

    def encode(self) -> dict[str, int]:
        said = {"accept_at_least_e6": self.accept_at_least_e6, "reject_above_e6": self.reject_above_e6}
        return {name: value for name, value in said.items() if value is not None}


AS_SIGNED = Override()


def number(e6: int) -> str:
    """Millionths, for people to read: 0.8 for 800000."""
    return f"{Decimal(e6) / E6:f}"


def decode(said: Mapping[str, Any]) -> Override:
    """The override of exactly these fields. Raises TypeError where they are not one's."""
    found = Override(**said)
    if found.encode().keys() != said.keys() or not all(type(value) is int for value in found.encode().values()):
        raise TypeError("a threshold is a whole number of millionths")
    return found
