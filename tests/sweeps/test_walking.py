"""Walk-forward: windows in order, nothing of the future, stitched as they were traded."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from qml_plugin import PatternRegistry, walk_forward
from qml_plugin.errors import DataError
from qml_plugin.sweeps.walking import folds_of
from tests.conftest import random_walk
from tests.sweeps.conftest import HOST
from tests.sweeps.troubled import Cross, Plain

GRID = {"fast": [2, 3, 4], "slow": [6, 9]}
WINDOWS = {"train": 120, "test": 60}


@pytest.fixture(scope="module")
def bars():
    return random_walk(420, 8)


def walked(bars, folder, **options):
    return walk_forward(Plain, bars, GRID, folder=folder, progress=False, **{**WINDOWS, **HOST, **options})


@pytest.fixture(scope="module")
def whole(bars, tmp_path_factory):
    return walked(bars, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("anchored", [False, True])
def test_windows_follow_one_another_and_training_ends_a_purge_before(anchored):
    folds = folds_of(1000, 300, 100, 20, "auto", anchored=anchored)
    assert [fold.test_start for fold in folds] == list(range(320, 1000, 100))
    for fold, after in itertools.pairwise(folds):
        assert fold.test_end == after.test_start
    for fold in folds:
        assert fold.train_end + 20 == fold.test_start < fold.test_end <= 1000
        assert fold.train_start == (0 if anchored else fold.train_end - 300) == fold.seen_start


def test_what_is_traded_depends_on_nothing_later(bars, whole, tmp_path):
    cut = int(whole.folds["test_end"][1])
    other = bars.copy()
    rng = np.random.default_rng(0)
    other.iloc[cut:, :4] *= np.exp(rng.normal(0, 0.003, len(bars) - cut))[:, None]
    changed = walked(other, tmp_path)
    assert changed.purge_bars == whole.purge_bars
    first = cut - int(whole.folds["test_start"][0])
    assert list(changed.equity[:first]) == list(whole.equity[:first])
    assert list(changed.equity[first:]) != list(whole.equity[first:])
    names = [*GRID, "in_sample", "out_of_sample", "return_frac", "run_id"]
    pd.testing.assert_frame_equal(changed.folds[names].iloc[:2], whole.folds[names].iloc[:2])
    early = whole.trades[whole.trades["fold"] < 2].drop(columns="fold")
    pd.testing.assert_frame_equal(changed.trades[changed.trades["fold"] < 2].drop(columns="fold"), early)


def test_nothing_is_traded_outside_the_test_windows_and_the_purge_is_the_longest_trade_of_the_first(whole):
    assert len(whole.trades) > 10
    for number, fold in whole.folds.iterrows():
        own = whole.trades[whole.trades["fold"] == number]
        assert (own["EntryBar"] > fold["test_start"]).all()
        assert (own["ExitBar"] < fold["test_end"]).all()
    assert whole.purge_bars == whole.searches[0].table["longest_trade_bars"].max() > 0
    assert whole.folds["train_start"][0] == 0


def test_the_stitched_equity_compounds_the_windows(bars, whole):
    assert len(whole.equity) == len(bars) - whole.folds["test_start"][0]
    assert whole.equity.iloc[0] == HOST["cash"]
    compounded = HOST["cash"] * np.prod(1 + whole.folds["return_frac"])
    assert whole.equity.iloc[-1] == pytest.approx(compounded, rel=1e-12)
    assert whole.metrics["return_frac"] == pytest.approx(whole.equity.iloc[-1] / HOST["cash"] - 1, rel=1e-12)
    assert whole.metrics["n_trades"] == len(whole.trades)
    assert not len(whole.failed)


def test_it_is_recorded_with_all_its_searches_and_resumes_to_the_same(bars, tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    about = {
        "registry": url, "symbol": "X", "mode": "record", "progress": False, "purge": 10, "train": 150, "test": 100, **HOST,
    }  # fmt: skip
    first = walk_forward(Cross, bars, {"fast": [2, 4]}, **about)
    registry = PatternRegistry(url)
    kinds = [run["kind"] for run in registry.get_runs(1000)]
    assert (kinds.count("walk_forward"), kinds.count("sweep")) == (1, 2 * len(first.folds))
    row = registry.get_run(first.run_id)
    assert (row["status"], row["metrics"]["n_trades"]) == ("finished", len(first.trades))
    returns = registry.get_returns(first.run_id)
    assert np.prod(1 + returns) == pytest.approx(1 + first.metrics["return_frac"], rel=1e-12)
    assert {registry.get_run(s.run_id)["parent_run_id"] for s in first.searches} == {first.run_id}
    again = walk_forward(Cross, bars, {"fast": [2, 4]}, resume=True, **about)
    assert again.folds.to_csv() == first.folds.to_csv()
    assert list(again.equity) == list(first.equity)


def test_a_window_in_which_nothing_can_be_chosen_is_not_traded_and_named(bars, tmp_path):
    result = walked(bars, tmp_path, trouble="raise", purge=0, retries=0)
    assert result.folds["error"].str.startswith("nothing chosen: no point has a value of sharpe_annual").all()
    assert (result.equity == HOST["cash"]).all()
    assert len(result.failed) == len(result.folds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 1}, "train is 1"),
        ({"by": "foo"}, "by 'foo' is no way to choose. Use one of plateau, objective, .*sharpe_annual"),
        ({"purge": "long"}, "purge is 'long'. It is a number of bars, 0 or more, or auto"),
        ({"train": 400}, "420 bars are too few for train=400 and test=60"),
        ({"train": 300, "purge": 119}, "too few for train=300, test=60 and a purge of 119"),
    ],
)
def test_windows_that_do_not_fit_are_refused(bars, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        walked(bars, tmp_path, **options)


def by_bars(stats):
    """Of what a callable is given: everything must be of the test window."""
    equity = stats["_equity_curve"]["Equity"]
    trades = stats["_trades"]
    assert len(trades) == stats["# Trades"] == len(stats["_strategy"].closed_trades)
    assert trades["ExitBar"].max() < len(equity)
    assert (stats["Start"], stats["End"]) == (equity.index[0], equity.index[-1])
    returns = equity.pct_change().dropna()
    return float(returns.mean() / returns.std())


@pytest.mark.parametrize("objective", ["return_annual_frac", "exposure_frac", by_bars])
def test_out_of_sample_is_of_the_test_window_whatever_was_seen_before(bars, tmp_path, objective):
    grid = {"fast": [2], "slow": [6, 9]}
    about = {"folder": tmp_path, "progress": False, "purge": 20, "by": "objective", "objective": objective, **HOST}
    long, short = (walk_forward(Plain, bars, grid, warmup=warmup, **WINDOWS, **about) for warmup in (100, 30))
    assert len(long.trades) > 10
    assert long.trades.shape == short.trades.shape
    for number, fold in long.folds.iterrows():
        window = bars.iloc[fold["test_start"] : fold["test_end"]]
        equity = long.equity[window.index]
        if objective == "return_annual_frac":
            days = equity.groupby(equity.index.normalize()).last().pct_change().dropna()
            is_week = (window.index.day_of_week >= 5).mean() > 2 / 7 * 0.6  # how the host tells a market's year
            expected = np.exp(np.log1p(days).sum() / len(days) * (365 if is_week else 252)) - 1
        elif objective == "exposure_frac":
            own = long.trades[long.trades["fold"] == number]
            spans = [range(*span) for span in zip(own["EntryBar"], own["ExitBar"] + 1, strict=True)]
            expected = len(set().union(*spans)) / len(window)
        else:
            returns = equity.pct_change().dropna()
            expected = returns.mean() / returns.std()
        assert fold["out_of_sample"] == pytest.approx(expected, rel=1e-9)
        assert short.folds["out_of_sample"][number] == pytest.approx(expected, rel=1e-9)
