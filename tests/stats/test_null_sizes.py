"""The worlds on which the nulls are measured are what they say, and the study resumes where it stopped."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.null_sizes import (
    BAR_SD,
    BARS_A_YEAR,
    BY_NAME,
    FAST,
    SLOW,
    crossing,
    figures,
    make_world,
    measure,
    positions,
    run_kind,
)


def annual(returns):
    return returns.mean() / returns.std() * np.sqrt(BARS_A_YEAR)


def test_positions_know_earlier_closes_only():
    closes = np.cumsum(np.random.default_rng(0).normal(size=300))
    held = crossing(closes, FAST, SLOW, False)
    for t in range(SLOW, 300):
        assert held[t] == np.sign(closes[t - FAST : t].mean() - closes[t - SLOW : t].mean())
    changed = closes.copy()
    changed[200:] += 100
    np.testing.assert_array_equal(crossing(changed, FAST, SLOW, False)[:201], held[:201])


@pytest.mark.parametrize(
    ("name", "of_market", "of_strategy"),
    [("null, long and short", 0, 0), ("drift 1, long only", 1, 0.7), ("edge 2, long and short", 0, 2)],
)
def test_worlds_have_the_drift_and_the_edge_they_name(name, of_market, of_strategy):
    kind = replace(BY_NAME[name], n_bars=400_000)
    returns, bars = make_world(kind, 1)
    earned = positions(bars, FAST, SLOW, kind.is_long_only) * returns
    error = np.sqrt(BARS_A_YEAR / 400_000)
    assert annual(returns) == pytest.approx(of_market, abs=4 * error + 0.1 * of_market)
    assert annual(earned) == pytest.approx(of_strategy, abs=4 * error + 0.1 * of_strategy)
    assert returns.std() == pytest.approx(BAR_SD, rel=0.1)
    sizes = np.abs(returns)
    assert np.corrcoef(sizes[:-1], sizes[1:])[0, 1] > 0.1
    assert (bars[:, 1] >= bars[:, [0, 3]].max(axis=1)).all()


def test_finished_worlds_are_not_measured_again(tmp_path):
    kind = replace(BY_NAME["search, edge 2, long and short"], n_bars=1500)
    first = list(run_kind(kind, 2, tmp_path))
    path = tmp_path / kind.path
    path.write_text(path.read_text().splitlines()[0].replace('"SPA": ', '"SPA": 9') + "\n")
    again = list(run_kind(kind, 2, tmp_path))
    assert again[0]["SPA"] >= 9
    assert again[1] == first[1]
    row = figures(kind, first)
    assert row["worlds"] == 2
    assert set(row["share"].values()) <= {0.0, 0.5, 1.0}


def test_every_test_of_a_world_has_a_p_value():
    found = measure(replace(BY_NAME["null, long and short"], n_bars=1500), 3)
    assert len(found) == 10
    assert all(0 < p <= 1 for p in found.values())
