"""Thresholds as the manifest has them, in whole millionths, rounded so that the case which gave one is still within it."""

import math

from appliance.bundle.manifest import E6


def under(value: float, parts: int = E6) -> int:
    """The largest whole n with n / parts ≤ value: for a threshold that values have to reach."""
    found = math.floor(value * parts)
    return found - 1 if found / parts > value else found  # the product may have been rounded up to a whole number


def over(value: float, parts: int = E6) -> int:
    """The smallest whole n with n / parts ≥ value: for a threshold that values must not exceed."""
    return -under(-value, parts)
