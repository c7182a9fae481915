"""An even choice of places."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from export.evenly import evenly


@given(st.integers(2, 3000), st.integers(2, 3000))
def test_choice_has_both_ends_and_no_large_hole(count: int, most: int) -> None:
    chosen = evenly(count, most)
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    assert len(chosen) == min(count, most)
    steps = np.diff(chosen)
    assert steps.max() - steps.min() <= 1


def test_one_place_is_the_first() -> None:
    assert evenly(5, 1).tolist() == [0]
    assert evenly(1, 5).tolist() == [0]
