"""What a sweep comes to: the same as the host's own runs, whatever the number of jobs, and all of it kept."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from backtesting import Backtest

from qml_plugin import PatternRegistry, sweep
from qml_plugin.adapters.reproduce import reproduce
from qml_plugin.errors import DataError, MissingExtra
from tests.conftest import random_walk
from tests.sweeps.conftest import HOST
from tests.sweeps.troubled import Cross, Plain

GRID = {"fast": [3, 5, 7], "slow": [10, 15]}


def filled(path):
    """A registry with a past before the bars of the sweeps."""
    early = random_walk(400, 9)
    early.index = early.index - pd.Timedelta(days=60)
    url = f"sqlite:///{path}"
    Backtest(early, Cross, **HOST).run(symbol="OLD", timeframe="1h", registry=url, mode="record")
    return url


@pytest.fixture(scope="module")
def shadows(tmp_path_factory):
    """The same sweep with full memory, in this process and in two others."""
    found = []
    for n_jobs in (1, 2):
        url = filled(tmp_path_factory.mktemp("shadow") / "x.db")
        about = {"mode": "shadow", "symbol": "X", "progress": False, **HOST}
        found.append((url, sweep(Cross, random_walk(400, 5), GRID, n_jobs=n_jobs, registry=url, **about)))
    return found


def test_one_process_and_two_come_to_the_same_bytes(shadows):
    (one_url, one), (two_url, two) = shadows
    assert one.table.to_csv() == two.table.to_csv()
    for run_id in one.table["run_id"]:
        pd.testing.assert_frame_equal(one.trades(run_id), two.trades(run_id))
        pd.testing.assert_frame_equal(one.equity(run_id), two.equity(run_id))
        assert PatternRegistry(one_url).get_decisions(run_id) == PatternRegistry(two_url).get_decisions(run_id)
    assert any(d["confidence"] is not None for d in PatternRegistry(one_url).get_decisions(one.table["run_id"][0]))


def test_the_features_of_a_series_are_computed_once(shadows):
    assert [result.n_feature_passes for _, result in shadows] == [1, 1]


def test_a_point_is_the_run_that_the_host_makes_of_it(shadows, tmp_path):
    _, result = shadows[0]
    url = filled(tmp_path / "x.db")
    row = result.table.iloc[3]
    params = result.parameters(row["run_id"])
    assert params == {"fast": 5, "slow": 15}
    host = Backtest(random_walk(400, 5), Cross, **HOST)
    stats = host.run(symbol="X", registry=url, mode="shadow", **params)
    assert stats["_strategy"].qml.run.run_id == row["run_id"]
    assert stats["Sharpe Ratio"] == row["sharpe_annual"] == row["objective"]
    trades = result.trades(row["run_id"])
    assert list(trades["PnL"]) == list(stats["_trades"]["PnL"])
    assert list(trades.columns) == list(stats["_trades"].columns)
    assert list(result.equity(row["run_id"])["Equity"]) == list(stats["_equity_curve"]["Equity"])
    mine, theirs = (PatternRegistry(u).get_decisions(row["run_id"]) for u in (shadows[0][0], url))
    assert mine == theirs


def test_the_ledger_counts_the_points_and_not_the_sweep_and_a_point_can_be_reproduced(shadows):
    url, result = shadows[1]
    registry = PatternRegistry(url)
    runs = [run for run in registry.get_runs() if run["symbol"] == "X"]
    assert sorted(run["kind"] for run in runs) == ["cell"] * 6 + ["sweep"]
    assert {run["parent_run_id"] for run in runs if run["kind"] == "cell"} == {result.run_id}
    assert registry.n_trials("Cross", random_walk(400, 5)) == 6
    assert registry.trial_returns("Cross", random_walk(400, 5)).shape == (399, 6)
    assert reproduce(url, result.table["run_id"][4], strategy=Cross).is_identical
    with pytest.raises(DataError, match="is a sweep: a search, not a backtest"):
        reproduce(url, result.run_id)


def test_many_symbols_are_searched_at_once_and_pooled_or_told_apart(tmp_path):
    data = {"A": random_walk(160, 1), "B": random_walk(160, 2)}
    result = sweep(Plain, data, {"fast": [3, 4]}, folder=tmp_path, progress=False, **HOST)
    assert list(result.table["symbol"]) == ["A", "A", "B", "B"]
    values = result.table["objective"].to_numpy().reshape(2, 2)
    assert result.best(by="objective")["objective"] == values.mean(axis=0).max()
    assert result.best(by="objective", symbol="B")["objective"] == values[1].max()
    assert result.table["run_id"].is_unique


def test_an_objective_may_be_a_function_and_trades_keep_other_columns_of_the_bars(bars, tmp_path):
    result = sweep(
        Plain, bars.assign(Note="x"), {"fast": [3, 4]}, objective=lambda stats: -len(stats["_trades"]), folder=tmp_path,
        progress=False, **HOST,
    )  # fmt: skip
    assert list(result.table["objective"]) == list(-result.table["n_trades"])
    assert result.objective == "<lambda>"


def test_a_surface_has_a_place_for_every_value_and_says_what_it_was_asked(tmp_path, bars):
    result = sweep(
        Plain, bars, {"fast": [3, 4, 5], "slow": [4, 8]}, constraint=lambda p: p.fast < p.slow, folder=tmp_path,
        progress=False, **HOST,
    )  # fmt: skip
    surface = result.surface("fast", "slow", metric="return_frac")
    assert surface.shape == (3, 2)
    assert surface.isna().to_numpy().tolist() == [[False, False], [True, False], [True, False]]
    assert surface.loc[4, 8] == result.table.set_index(["fast", "slow"])["return_frac"][4, 8]
    for arguments, message in [
        (("fast", "slwo"), "no parameter 'slwo'.*Did you mean 'slow'"),
        (("fast", "fast"), "was given twice"),
    ]:
        with pytest.raises(DataError, match=message):
            result.surface(*arguments)
    with pytest.raises(DataError, match=r"no metric 'sharp': it has .*longest_trade_bars, objective"):
        result.best(by="sharp")


def test_a_random_search_is_a_part_of_the_grid(tmp_path, bars):
    about = {"folder": tmp_path, "progress": False, "search": "random", "n_points": 4, **HOST}
    result = sweep(Plain, bars, {"fast": range(2, 7), "slow": [8, 9]}, seed=3, **about)
    assert len(result.table.drop_duplicates(["fast", "slow"])) == 4
    with pytest.raises(DataError, match="half of its neighbours tested"):
        sweep(Plain, bars, {"fast": range(2, 60, 9), "slow": [8, 9]}, seed=3, **{**about, "n_points": 1}).best()


def test_what_the_host_warns_of_is_said_once_with_the_number_of_points(tmp_path, bars):
    with pytest.warns(UserWarning) as said:  # noqa: PT030 what it says is compared below
        result = sweep(Plain, bars, {"fast": [3, 4]}, folder=tmp_path, progress=False, cash=1_000_000)
    assert [str(one.message)[:40] for one in said] == [
        "2 of 2 points: Some trades remain open a",
        "2 of 2 points: time=…: Broker canceled t",
    ]
    assert list(result.warned.values()) == [2, 2]


def test_a_tpe_search_asks_for_the_same_points_whatever_has_been_kept(tmp_path, bars):
    about = {"progress": False, "search": "tpe", "n_points": 12, **HOST}
    grid = {"fast": range(2, 9), "slow": range(9, 14), "trouble": ["", "none"]}
    pytest.importorskip("optuna")
    first = sweep(Plain, bars, grid, folder=tmp_path, **about)
    again = sweep(Plain, bars, grid, folder=tmp_path, resume=True, **about)
    assert len(first.table) == 12
    assert first.table.to_csv() == again.table.to_csv()


def test_a_tpe_search_without_optuna_names_the_install_command(tmp_path, bars, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"pip install 'qml-plugin\[optuna\]'"):
        sweep(Plain, bars, GRID, folder=tmp_path, progress=False, search="tpe", n_points=2, **HOST)


def test_a_strategy_that_writes_into_its_bars_reaches_no_other_point(tmp_path, bars):
    result = sweep(Spoiling, bars, {"fast": [3, 4]}, folder=tmp_path, progress=False, **HOST)
    alone = sweep(Spoiling, bars, {"fast": [4]}, folder=tmp_path, progress=False, **HOST)
    assert result.table["objective"].iloc[1] == alone.table["objective"].iloc[0]


class Spoiling(Plain):
    def init(self):
        super().init()
        np.asarray(self.data.df["Close"].array)[:] *= 1.01
