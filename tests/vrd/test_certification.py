"""Certification on a few short markets; its figures come from ``qml certify`` itself."""

import json
from dataclasses import replace

import numpy as np
import pytest

from qml_plugin.errors import DataError
from qml_plugin.vrd.certification import FAMILIES, Draws, Market, certify, judged_set, world
from qml_plugin.vrd.certification.judging import true_sharpe
from qml_plugin.vrd.certification.own_strategy import OwnStrategy
from qml_plugin.vrd.evaluation import run_trials
from qml_plugin.vrd.leakage import audit_positions
from qml_plugin.vrd.thresholds import load_thresholds
from qml_plugin.vrd.walk_forward import first_bars
from tests.conftest import random_walk

SHORT, TINY = Market(n_bars=6_000), Market(n_bars=1_500)
FEW = Draws(n_draws=99, n_paths=100)


def judged(name, family, index, seed, draws=FEW, market=SHORT):
    return judged_set(name, FAMILIES[family], index, seed, market, draws, load_thresholds())


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_no_family_looks_ahead(name):
    family = FAMILIES[name]
    bars = world("null", family, 0, 1, SHORT)
    assert audit_positions(first_bars(bars, 3_000), family.evaluate(), family.true, seed=1).verdict == "clean"


def test_a_strong_planted_edge_is_deployed_and_the_same_market_without_it_is_not():
    strong = judged("edge3", "breakout", 0, 7)
    assert strong["naive"] == "DEPLOY"
    assert strong["true_sharpe"] > 1.5
    assert strong["gates"]["timing"] == "PASS"
    assert judged("null", "breakout", 0, 7)["verdict"] != "DEPLOY"


def test_the_planted_edge_is_the_sharpe_ratio_that_was_asked_for():
    family = FAMILIES["moving_average"]
    found = []
    for index in range(12):
        bars = world("edge2", family, index, 50, SHORT)
        found.append(true_sharpe(run_trials(bars, family.evaluate(), [family.true]), family))
    assert np.mean(found) == pytest.approx(2.0, abs=3 * 1 / np.sqrt(12 * 2.74))


def test_permuting_the_whole_search_is_judged_beside():
    with_permutations = replace(FEW, n_permutations=19)
    assert judged("edge3", "breakout", 1, 7, with_permutations)["permuted_selection"] == "PASS"
    plain, noise = (judged("null", "breakout", 1, 7, draws, TINY) for draws in (FEW, with_permutations))
    assert (noise["permuted_selection"], noise["permuted"]) == ("FAIL", "REJECT")
    assert (plain["permuted_selection"], plain["permuted"]) == (None, None)
    assert all(noise[key] == plain[key] for key in ("verdict", "gates", "naive"))


def test_any_number_of_processes_counts_the_same_and_finished_sets_are_kept(tmp_path):
    searched = [FAMILIES["breakout"], FAMILIES["moving_average"]]
    options = {"n_sets": 2, "seed": 5, "market": TINY, "draws": FEW}
    alone = certify(searched, ("null", "drift"), folder=tmp_path / "a", **options)
    heard = []
    two = certify(
        searched, ("null", "drift"), folder=tmp_path / "b", n_jobs=2, on_progress=lambda *told: heard.append(told), **options
    )  # fmt: skip
    assert _timeless(alone) == _timeless(two)
    assert heard[-1][:2] == (8, 8)
    assert [(row.world, row.family, row.n) for row in alone.counts] == [
        (name, family, n) for name in ("null", "drift") for family, n in (("breakout", 2), ("moving_average", 2), ("all", 4))
    ]  # fmt: skip
    path = next((tmp_path / "a").glob("null-breakout-5-*.jsonl"))
    before = path.read_bytes()
    path.write_bytes(before[:-5])  # killed in the middle of a line
    again = certify(searched, ("null", "drift"), folder=tmp_path / "a", is_only_counted=True, **options)
    assert again.counts[0].n == 1
    assert _timeless(certify(searched, ("null", "drift"), folder=tmp_path / "a", **options)) == _timeless(alone)
    assert [json.loads(line)["index"] for line in path.read_text().splitlines() if line.endswith("}")] == [0, 1]
    other = certify(searched, ("null",), folder=tmp_path / "a", is_only_counted=True, **options | {"market": Market()})
    assert other.counts == ()
    assert "No market" in other.sentence()


def _timeless(found):
    numbers = found.as_dict()
    for row in [*numbers["counts"], numbers["no_edge"]]:
        row["seconds"] = 0
    return numbers


OWN = """
import numpy as np
from qml_plugin.adapters.array_strategy import ArrayStrategy, with_stops


class Momentum(ArrayStrategy):
    n_bars = 20
    ahead = 0

    def signals(self, bars):
        n = self.n_bars
        move = np.zeros(len(bars))
        move[n:] = np.sign(bars.close[n:] - bars.close[:-n])
        move = np.roll(move, -self.ahead)
        return with_stops(bars, np.where(np.diff(move, prepend=0) != 0, move, 0), stop_loss_atr=2.0)


class Fails(Momentum):
    def signals(self, bars):
        raise ValueError("not today")


class ByBar(Momentum):
    def next(self):
        pass


class Fixed(ArrayStrategy):
    pass
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return lambda name: f"{tmp_path / 'own.py'}:{name}"


def test_a_strategy_of_ones_own_is_judged_on_markets_like_the_bars_given(own):
    frame = random_walk(900, 3, freq="4h")
    from qml_plugin.bars import bars_from_frame

    market = Market.of(bars_from_frame(frame, symbol="MINE"))
    assert (market.n_bars, market.timeframe, market.real.symbol) == (900, "4h", "MINE")
    mine = OwnStrategy.of(own("Momentum"), {"n_bars": [5, 10, 20]})
    real = world("real", mine, 0, 1, market)
    step = np.log(real.close[1:] / real.close[:-1])
    known = np.log(frame["Close"].to_numpy()[1:] / frame["Close"].to_numpy()[:-1])
    assert np.abs(step[:, None] - known[None, :]).min(axis=1).max() < 1e-12
    null = np.diff(np.log(world("null", mine, 0, 1, market).close))
    assert null.std() == pytest.approx(known.std(), rel=0.4)
    found = certify([mine], n_sets=1, market=market, draws=FEW)
    assert found.is_own
    assert [row.world for row in found.counts] == ["null", "drift", "real"]
    assert all(row.words["DEPLOY"] == 0 and row.passes["audit"] == 1 for row in found.counts)
    assert "this strategy and its search" in found.sentence()
    ahead = certify(
        [OwnStrategy.of(own("Momentum"), {"n_bars": [5, 10], "ahead": [3]})],
        ("null",),
        n_sets=1,
        market=market,
        draws=FEW,
    )
    assert ahead.counts[0].passes["audit"] == 0
    assert ahead.sentence().startswith("This is no result")
    assert "on 1 of 1 the audit did not pass (the position over bar" in ahead.sentence()
    assert "there was too little evidence (0.31 years out of sample; 1 is needed)" in ahead.sentence()
    assert "0.0 %" not in ahead.sentence()
    assert (ahead.fees, ahead.grids["Momentum"]["n_bars"]) == ({"Momentum": 0.0005}, [5, 10])


def test_one_that_fails_everywhere_is_insufficient(own):
    found = certify([OwnStrategy.of(own("Fails"), {"n_bars": [5, 10]})], ("null",), n_sets=1, market=SHORT, draws=FEW)
    assert found.counts[0].words["INSUFFICIENT"] == 1
    assert "on 1 of 1 there was too little evidence (all 2 trials failed" in found.sentence()


@pytest.mark.parametrize(
    ("name", "grid", "message"),
    [
        ("ByBar", {"n_bars": [5, 10]}, "ByBar runs bar by bar under backtesting.py, .* Write it as an ArrayStrategy"),
        ("Fixed", None, "Fixed has nothing to search"),
        ("Momentum", {"n_bars": [5]}, "Momentum has nothing to search"),
        ("Momentum", {"absent": [5, 6]}, "no parameter 'absent'"),
    ],
)
def test_what_cannot_be_certified_says_why(own, name, grid, message):
    with pytest.raises(DataError, match=message):
        OwnStrategy.of(own(name), grid)


def test_impossible_certifications_are_refused(own):
    mine = OwnStrategy.of(own("Momentum"), {"n_bars": [5, 10]})
    for arguments, message in (
        (([mine], ("edge2",)), "edge2 plants an edge .* Momentum is certified on null, drift, real"),
        (([mine], ("moon",)), "no world 'moon'"),
        (([], ("null",)), "nothing to certify"),
    ):
        with pytest.raises(DataError, match=message):
            certify(*arguments, n_sets=1)
    with pytest.raises(DataError, match="0 sets from seed 1"):
        certify([mine], n_sets=0, seed=1)
