"""The benchmark's own arithmetic: what it says of a run is what happened."""

import pytest

from appliance import load as loading
from appliance.engine.session import Hardware
from tests.benchmarks import h2load, models, points
from tests.benchmarks.h2load import Told, Unmeasurable
from tests.benchmarks.page import page
from tests.benchmarks.points import Point, Way, Work
from tests.benchmarks.rounds import Round, middle
from tests.forge import Forge

WORK = Work("tiny", 1, 8)
SUMMARY = """\
finished in 3.00s, 1231.67 req/s, 378.79KB/s
requests: 3695 total, 3703 started, 3695 done, 3694 succeeded, 0 failed, 1 errored, 0 timeout
traffic: 1.11MB (1163644) total, 10.90KB (11160) headers (space savings 96.27%), 934.45KB (956880) data
"""


def test_what_h2load_says_is_understood() -> None:
    assert h2load.parse_told(SUMMARY) == Told(3695, 3694, 956880)
    assert h2load.parse_log("1500000\t200\t250000\n") == [(1.5, 1.75)]
    with pytest.raises(Unmeasurable):
        h2load.parse_told("h2load: no such file")


@pytest.mark.parametrize("told", [Told(0, 0, 0), Told(9, 8, 945), Told(9, 9, 840), Told(9, 9, 950)])
def test_an_error_among_the_answers_is_no_figure(told: Told) -> None:
    """A gRPC error has status 200, and no body; nine answers of 100 bytes are 945 bytes on the wire."""
    h2load.require_answers(Told(9, 9, 945), [100, 100])
    h2load.require_answers(Told(9, 9, 950), [100, 101])
    with pytest.raises(Unmeasurable):
        h2load.require_answers(told, [100, 100])


def test_only_full_concurrency_is_measured_and_cut_requests_count_in_part() -> None:
    calls = [(0.0, 2.0), (0.0, 2.0), (2.0, 4.0), (2.0, 6.0), (4.0, 8.0)]
    window = h2load.window(calls, 2)
    assert window == (2.0, 4.0)
    assert Round.of(calls, 3, window).ips == 3 * (1 + 0.5) / 2


def test_ratios_are_to_the_best_way_without_a_server() -> None:
    slow, fast, worse = Round(90.0, 1, 2), Round(100.0, 1, 2), Round(200.0, 1, 2)
    assert middle([slow, worse, fast]) == fast
    ways = points.ways(WORK, 32, 2)
    assert {Way(1, 2, False, 8, 1), Way(1, 2, True, 1, 8), Way(2, 1, False, 2, 4)} <= set(ways)
    tried = {ways[0]: [fast], ways[1]: [worse], ways[2]: []}
    assert points.still_tried(tried) == ways[1:3]
    raw, served = Point("raw", WORK), Point("appliance", WORK, audit=True, tls=True)
    found = points.results({raw: points.best(tried), served: fast})
    assert [(result.ratio_to_raw, result.concurrency) for result in found] == [(1.0, 8), (0.5, 8)]
    assert points.results({served: fast})[0].ratio_to_raw is None


def test_the_page_needs_nothing_else_and_shows_every_figure() -> None:
    found = points.results({Point("raw", WORK): Round(123.4, 1, 2), Point("kserve", WORK): Round(98.7, 2, 3)})
    shown = page(found, ["Said <here>."])
    assert shown.count("<svg") == 1
    assert "Said &lt;here&gt;." in shown
    assert all(f"<td>{result.ips}</td>" in shown for result in found)
    assert not any(word in shown for word in ("<script", "<link", "src=", "@import"))


@pytest.mark.parametrize("network", [models.TINY, models.FREE_FLOATS], ids=lambda network: network.name)
def test_what_is_measured_is_a_bundle_that_an_appliance_loads(network: models.Network) -> None:
    """Golden cases included: a server of another model would be fast for nothing."""
    vendor = Forge()
    bundle = models.make(network).bundle(vendor)
    assert loading.load(vendor.open(bundle), Hardware((models.PROVIDER,), 1)).name == network.name
