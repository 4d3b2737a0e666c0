"""Regimes, decay, costs and attribution."""

import numpy as np
import pytest

from qml_plugin.bars import Bars
from qml_plugin.errors import DataError
from qml_plugin.features.catalogue import CATALOGUE
from qml_plugin.features.market import MarketFeatures
from qml_plugin.stats import automatic_block_length, mean_shift
from qml_plugin.stats.kernels import resampled_rows
from qml_plugin.vrd.attribution import attribute, feature_relations
from qml_plugin.vrd.costs import cost_stress
from qml_plugin.vrd.decay import edge_decay
from qml_plugin.vrd.regimes import REGIMES, by_regime, regimes, transition_matrix
from qml_plugin.vrd.walk_forward import first_bars


def test_regimes_are_the_features_of_the_bar_before(bars):
    values = MarketFeatures(bars).rows()
    trending, strength, volatile = (
        values[:, CATALOGUE.place(name)]
        for name in ("regime_is_trending", "regime_trend_strength", "regime_is_volatile")
    )
    slow = [-1]
    for trend, sign, wild in zip(trending[:-1], strength[:-1], volatile[:-1], strict=True):
        known = np.isfinite([trend, sign, wild]).all()
        slow.append(int(2 * ((np.sign(sign) if trend else 0) + 1) + wild) if known else -1)
    found = regimes(bars)
    assert found.tolist() == slow
    assert len(set(found.tolist())) == 7


def test_regimes_do_not_change_with_the_future(bars):
    whole, rng = regimes(bars), np.random.default_rng(1)
    for cut in (300, 777, 1499):
        wild = np.exp(rng.normal(0, 0.1, len(bars) - cut))
        columns = [
            np.concatenate([column[:cut], column[cut:] * wild])
            for column in (bars.open, bars.high, bars.low, bars.close)
        ]
        other = Bars(bars.symbol, bars.timeframe, bars.opened_at, bars.known_at, *columns, bars.volume)
        np.testing.assert_array_equal(regimes(other)[: cut + 1], whole[: cut + 1])
        np.testing.assert_array_equal(regimes(first_bars(bars, cut)), whole[:cut])


def test_results_by_regime_add_up():
    rng = np.random.default_rng(0)
    excess, code = rng.normal(0.001, 0.01, 600), rng.integers(-1, 6, 600).astype(np.int8)
    found = by_regime(excess, code, 252, n_draws=200, seed=1)
    for i, row in enumerate(found.rows):
        assert row.name == REGIMES[i]
        assert row.mean == pytest.approx(excess[code == i].mean())
        assert row.low < row.mean < row.high
        assert row.mean_without == pytest.approx(excess[(code >= 0) & (code != i)].mean())
    assert sum(row.total for row in found.rows) == pytest.approx(excess[code >= 0].sum())
    with pytest.raises(DataError, match="600 results and 599 regimes"):
        by_regime(excess, code[1:], 252, seed=1)


def test_transitions_are_counted_between_known_bars():
    found = transition_matrix(np.array([0, 1, 1, -1, 0, 1, 0], dtype=np.int8), 3)
    np.testing.assert_allclose(found[:2], [[0, 1, 0], [0.5, 0.5, 0]])
    assert np.isnan(found[2]).all()


def test_an_edge_that_ends_is_found_where_it_ends():
    rng = np.random.default_rng(0)
    returns = np.concatenate([rng.normal(0.004, 0.01, 500), rng.normal(-0.001, 0.01, 500)])
    found = edge_decay(returns, n_draws=199, seed=1)
    assert found.change_p <= 0.01
    assert abs(found.change_bar - 500) < 60
    assert found.mean_before > found.mean_after
    assert found.half_ratio < 0.2
    assert (found.low < found.mean).all()
    assert (found.mean < found.high).all()


def test_windows_of_decay_read_their_own_bars_only():
    rng = np.random.default_rng(0)
    one, two = rng.normal(0, 0.01, 400), rng.normal(0, 0.01, 400)
    two[:300] = one[:300]
    first, second = (edge_decay(x, n_windows=4, n_draws=19, seed=1) for x in (one, two))
    is_before = first.end_bar < 300
    np.testing.assert_array_equal(first.mean[is_before], second.mean[is_before])


def test_a_change_is_found_by_chance_as_often_as_it_may():
    rng = np.random.default_rng(5)
    p_values = [edge_decay(rng.normal(0, 1, 200), n_windows=1, n_draws=39, seed=i).change_p for i in range(60)]
    assert 0.02 <= np.mean(np.array(p_values) <= 0.05) <= 0.14


def test_a_resample_that_does_not_vary_speaks_for_no_change():
    values = np.zeros(40)
    values[7] = 1.0
    n_draws, block = 99, automatic_block_length(values)
    draws = [values[resampled_rows(40, 40, block, 1, 3 + draw)[0]] for draw in range(n_draws)]
    statistic = mean_shift(values).statistic
    n_flat = sum(not row.any() for row in draws)
    n_above = sum(row.any() and mean_shift(row).statistic >= statistic - 1e-10 for row in draws)
    assert n_flat > 10
    found = edge_decay(values, n_windows=1, n_draws=n_draws, seed=3)
    assert found.change_p == (1 + n_flat + n_above) / (1 + n_draws)


def test_decay_of_nothing_is_refused():
    with pytest.raises(DataError, match="Results vary"):
        edge_decay(np.zeros(100), seed=1)
    with pytest.raises(DataError, match="At least 40"):
        edge_decay(np.ones(10), seed=1)


def test_doubled_costs_are_taken_off_once_more():
    rng = np.random.default_rng(0)
    costs = rng.uniform(0, 0.001, 300)
    returns = rng.normal(0.002, 0.01, 300)
    found = cost_stress(returns, costs, 252, seed=1)
    np.testing.assert_allclose(found.mean, [np.mean(returns - k * costs) for k in (0, 1, 2)])
    at_break_even = returns - (found.break_even - 1) * costs
    assert at_break_even.mean() == pytest.approx(0, abs=1e-15)


def test_without_costs_there_is_nothing_to_stress():
    found = cost_stress(np.array([0.01, -0.001, 0.02]), np.zeros(3), 252, seed=1)
    assert not found.has_costs
    assert found.break_even == np.inf


def test_impossible_costs_are_refused():
    with pytest.raises(DataError, match="the least -1"):
        cost_stress(np.ones(3), np.array([0, -1, 0]), 252, seed=1)


def events(n, seed, signal=0.8):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 6))
    r = signal * features[:, 0] + rng.normal(0, 1, n)
    features[::7, 1] = np.nan
    known_at = np.arange(n) * 10
    return features, r, known_at, known_at + 5, [f"f{i}" for i in range(6)]


def test_the_feature_that_matters_is_found_and_the_others_are_not():
    found = attribute(*events(400, 0), seed=1)
    assert [one.name for one in found.relations if one.is_discovery] == ["f0"]
    assert found.n_effective == pytest.approx(400)
    assert found.importance is not None
    assert int(np.argmax(found.importance.mean)) == 0
    assert found.importance.mean[0] > 5 * np.abs(found.importance.mean[1:]).max()
    assert int(np.argmax(found.importance.contribution)) == 0
    assert found.importance.log_loss < found.importance.log_loss_of_base_rate


def test_false_discoveries_are_as_rare_as_they_may_be():
    n_found = [any(one.is_discovery for one in feature_relations(*events(100, seed, 0.0))[0]) for seed in range(100)]
    assert np.mean(n_found) <= 0.20


def test_overlapping_outcomes_count_as_the_part_that_is_their_own():
    features, r, known_at, _, names = events(100, 0, 0.3)
    alone = feature_relations(features, r, known_at, known_at + 5, names)
    together = feature_relations(features, r, known_at, known_at + 100, names)
    assert together[1] < 0.2 * alone[1]
    assert {one.name: one.p_value for one in together[0]}["f0"] > {one.name: one.p_value for one in alone[0]}["f0"]


def test_too_few_events_are_refused():
    with pytest.raises(DataError, match="29 outcomes refused"):
        feature_relations(*events(29, 0))
    features, r, known_at, resolved_at, names = events(40, 0)
    with pytest.raises(DataError, match="5 names refused"):
        feature_relations(features, r, known_at, resolved_at, names[:5])
