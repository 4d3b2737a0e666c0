"""Searches on vectorbt: columns as cells, the same whatever is played beside them, kept and gone on with."""

from __future__ import annotations

import pickle
import shutil
import sqlite3
from contextlib import closing
from functools import partial

import numpy as np
import pandas as pd
import pytest

from qml_plugin import PatternRegistry, gate_signals, sweep
from qml_plugin.errors import DataError
from qml_plugin.sweeps import signals as signals_module
from qml_plugin.sweeps import sweep_of, sweep_signals
from strategies.moving_average import MovingAverageCross
from tests.conftest import random_walk
from tests.sweeps.conftest import HOST

BARS = random_walk(300, 5)
GRID = {"fast": [3, 5, 8], "slow": [10, 20]}
STOPS = {"stop": 0.02, "target": 0.03}


LAG = 0


def cross(bars, fast, slow):
    above = bars.Close.rolling(fast).mean() > bars.Close.rolling(slow).mean()
    is_known = bars.Close.rolling(slow).mean().shift().notna()
    up, down = above & ~above.shift(fill_value=False), ~above & above.shift(fill_value=False)
    return {"long_entries": up & is_known, "short_entries": down & is_known, **STOPS}


def columns_of(bars=BARS, symbols=()):
    """Long and short entries of the grid as tables, the symbol in a level of its own where there are some."""
    points = {(fast, slow): cross(bars, fast, slow) for fast in GRID["fast"] for slow in GRID["slow"]}
    labels = [(symbol, *point) for symbol in symbols for point in points] if symbols else list(points)
    names = [*(["symbol"] if symbols else []), "fast", "slow"]
    columns = pd.MultiIndex.from_tuples(labels, names=names)
    return [
        pd.DataFrame({label: points[label[-2:]][name] for label in labels}).set_axis(columns, axis=1)
        for name in ("long_entries", "short_entries")
    ]


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Makes registries with the same past before the bars, so that entries are scored."""
    early = random_walk(600, 9)
    early.index = early.index - pd.Timedelta(days=60)
    first = tmp_path_factory.mktemp("taught") / "r.db"
    asked = cross(early, 2, 5)
    old = gate_signals(early, **asked, symbol="OLD", registry=f"sqlite:///{first}", mode="record")
    old.record(old.portfolio())

    def copied(path):
        with closing(sqlite3.connect(first)) as database:
            database.execute("VACUUM INTO ?", (str(path),))
        return f"sqlite:///{path}"

    return copied


def test_columns_of_one_call_are_cells_of_a_search_as_each_would_be_alone(tmp_path, taught):
    url = taught(tmp_path / "r.db")
    longs, shorts = columns_of()
    common = {**STOPS, "symbol": "X", "mode": "gate"}
    gated = gate_signals(BARS, longs, shorts, registry=url, **common)
    registry = PatternRegistry(url)
    assert registry.n_trials("Signals", gated.runs[0].data_hash) == 6, "they count from their start"
    assert gated.n_feature_passes == 1
    result = sweep_of(pickle.loads(pickle.dumps(gated)))  # noqa: S301
    found = {run["run_id"]: run for run in registry.get_runs(symbol="X")}
    (search,) = (run for run in found.values() if run["kind"] == "sweep")
    cells = [run for run in found.values() if run["kind"] == "cell"]
    assert (search["run_id"], search["status"]) == (result.run_id, "finished")
    assert search["params"]["sweep"]["grid"] == {"fast": [3, 5, 8], "slow": [10, 20]}
    assert {run["parent_run_id"] for run in cells} == {result.run_id}
    assert registry.n_trials("Signals", gated.runs[0].data_hash) == len(cells) == 6
    assert result.table["run_id"].tolist() == [run.run_id for run in gated.runs]
    for place, label in list(enumerate(longs.columns))[::3]:
        alone_url = taught(tmp_path / f"{place}.db")
        alone = gate_signals(BARS, longs[[label]], shorts[[label]], registry=alone_url, **common)
        alone.record(alone.portfolio())
        run_id = alone.runs[0].run_id
        assert run_id == result.table["run_id"][place], "a column is the same run alone"
        assert registry.get_decisions(run_id) == PatternRegistry(alone_url).get_decisions(run_id)
        assert found[run_id]["metrics"] == alone.runs[0].metrics
        assert found[run_id]["params"]["strategy"] == {"fast": label[0], "slow": label[1], "max_bars": None}
    assert any(d["confidence"] is not None for d in registry.get_decisions(run_id))


def test_the_table_of_columns_has_surfaces_a_plateau_trades_and_equity(tmp_path):
    longs, shorts = columns_of()
    gated = gate_signals(BARS, longs.iloc[:, ::-1], shorts.iloc[:, ::-1], mode="record", **STOPS)
    pf = gated.portfolio(1_000)
    result = sweep_of(gated, pf, folder=tmp_path, objective="return_frac")
    assert result.table[["fast", "slow"]].to_numpy().tolist() == [list(label) for label in longs.columns]
    assert result.surface("fast", "slow").to_numpy().ravel().tolist() == result.table["objective"].tolist()
    assert result.table["objective"].tolist() == pytest.approx(pf.total_return()[longs.columns].tolist())
    assert result.best()["run_id"] in set(result.table["run_id"])
    run_id = result.table["run_id"][0]
    trades, equity = result.trades(run_id), result.equity(run_id)
    records = pf.entry_trades.records
    records = records[records["col"] == 5]
    assert trades["ReturnPct"].tolist() == records["return"].tolist()
    assert trades["IsOpen"].sum() == (records["status"] == 0).sum()
    assert trades["EntryTime"].tolist() == BARS.index[trades["EntryBar"]].tolist()
    assert set(trades["Tag"]) <= set(gated.table()["pattern_id"])
    assert equity["Equity"].tolist() == pf.value().iloc[:, 5].tolist()


def test_a_level_that_names_markets_is_no_parameter(tmp_path):
    frames = {"A": BARS, "B": random_walk(300, 6)}
    longs, shorts = columns_of(symbols=("A", "B"))
    result = sweep_of(gate_signals(frames, longs, shorts, mode="record", **STOPS), folder=tmp_path)
    assert result.grid_names == ("fast", "slow")
    assert result.table["symbol"].tolist() == ["A"] * 6 + ["B"] * 6
    assert len(result.surface("fast", "slow", symbol="B")) == 3
    assert "run_id" not in result.best()
    missing = gate_signals(frames, longs.iloc[:, :-1], shorts.iloc[:, :-1], mode="record", **STOPS)
    with pytest.raises(DataError, match="not every market has the same columns"):
        sweep_of(missing, folder=tmp_path)


def test_columns_that_are_no_search_are_refused(tmp_path):
    one = BARS.Close > BARS.Close.shift(fill_value=1e9)
    with pytest.raises(DataError, match="one column is no search"):
        sweep_of(gate_signals(BARS, one, mode="record"))
    same = pd.DataFrame(np.column_stack([one, one]), index=BARS.index, columns=[1, 1])
    with pytest.raises(DataError, match="columns 0 and 1 have the same label 1"):
        sweep_of(gate_signals(BARS, same, mode="record"), folder=tmp_path)
    with pytest.raises(DataError, match="a level of the columns is called 'status'"):
        sweep_of(gate_signals(BARS, same.set_axis(pd.Index([1, 2], name="status"), axis=1), mode="record"))
    frames = {"A": BARS, "B": BARS}
    with pytest.raises(DataError, match="told apart by their market only"):
        sweep_of(gate_signals(frames, same.set_axis(["A", "B"], axis=1), mode="record"))
    two = gate_signals(BARS, same.set_axis([1, 2], axis=1), mode="record")
    import vectorbt as vbt

    shared = vbt.Portfolio.from_signals(
        BARS.Close, two.entries, two.exits, price=two.price, freq="1h", cash_sharing=True, group_by=True
    )
    with pytest.raises(DataError, match="share cash"):
        sweep_of(two, shared, folder=tmp_path)
    assert not list(tmp_path.iterdir()), "no search is said to run"


def test_a_parameter_of_a_function_is_no_setting_of_how_it_is_played(tmp_path):
    def signals(bars, reverses):
        del reverses
        return cross(bars, 5, 20)

    result = sweep_signals(signals, BARS, {"reverses": [0, 1]}, folder=tmp_path, progress=False)
    assert result.table["n_trades"].iloc[0] > 5
    assert result.table["return_frac"].nunique() == 1


def test_a_sweep_of_signals_is_the_same_whatever_is_played_at_once(tmp_path, taught, monkeypatch):
    url = taught(tmp_path / "r.db")
    about = {"symbol": "X", "mode": "shadow", "folder": tmp_path, "progress": False}
    result = sweep_signals(cross, BARS, GRID, registry=url, **about)
    assert result.n_feature_passes == 1
    registry = PatternRegistry(url)
    n_trials = registry.n_trials("cross", registry.get_run(result.run_id)["data_hash"])
    assert n_trials == result.n_tested == 6
    kept = {run_id: registry.get_decisions(run_id) for run_id in result.table["run_id"]}
    monkeypatch.setattr(signals_module, "_VALUES_AT_ONCE", 1)
    other = taught(tmp_path / "other.db")
    one_by_one = sweep_signals(cross, BARS, GRID, registry=other, **about)
    assert one_by_one.table.to_csv() == result.table.to_csv()
    assert {run_id: PatternRegistry(other).get_decisions(run_id) for run_id in kept} == kept
    assert any(d["confidence"] is not None for decisions in kept.values() for d in decisions)
    alone = gate_signals(
        BARS, **cross(BARS, 5, 20), symbol="X", mode="shadow", strategy="cross", registry=taught(tmp_path / "c.db")
    )
    pf = alone.portfolio()
    alone.record(pf)
    (row,) = result.table[(result.table["fast"] == 5) & (result.table["slow"] == 20)].to_dict("records")
    assert row["return_frac"] == alone.runs[0].metrics["return_frac"]
    assert [d["confidence"] for d in kept[row["run_id"]]] == [
        d.confidence for d in sorted(alone.decisions, key=lambda d: d.pattern_id)
    ]
    assert result.trades(row["run_id"])["Tag"].tolist() == [
        alone.pattern_of(int(bar), -1 if side else 1)
        for bar, side in pf.entry_trades.records[["entry_idx", "direction"]].to_numpy()
    ]


def test_both_hosts_make_the_same_trades_of_a_grid(tmp_path):
    grid = GRID | {"stop_loss_atr": [None, 2.0]}
    host = HOST | {"finalize_trades": False}  # what is open stays open on vectorbt
    with pytest.warns(UserWarning, match="10 of 12 points: Some trades remain open"):
        theirs = sweep(MovingAverageCross, BARS, grid, mode="record", folder=tmp_path, progress=False, **host)
    ours = sweep_signals(MovingAverageCross, BARS, grid, folder=tmp_path, progress=False)
    names = ["EntryBar", "ExitBar", "EntryPrice", "ExitPrice", "EntryTime", "ExitTime"]
    n_trades = 0
    for left, right in zip(theirs.table["run_id"], ours.table["run_id"], strict=True):
        one, other = theirs.trades(left), ours.trades(right)
        other = other[~other["IsOpen"]]
        by = ["EntryBar", "ExitBar"]  # backtesting.py lists them as they close
        one, other = (table.sort_values(by).reset_index(drop=True) for table in (one, other))
        pd.testing.assert_frame_equal(one[names], other[names], check_dtype=False, rtol=1e-12)
        assert np.sign(one["Size"]).tolist() == np.sign(other["Size"]).tolist()
        assert one["ReturnPct"].tolist() == pytest.approx(other["ReturnPct"].tolist(), rel=1e-9, abs=1e-12)
        n_trades += len(one)
    assert n_trades > 100


def test_a_sweep_that_was_interrupted_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(signals_module, "_VALUES_AT_ONCE", 2 * len(BARS))
    asked, stops_at = [], [4]

    def counted(bars, fast, slow):
        asked.append((fast, slow))
        if len(asked) == stops_at[0]:
            raise KeyboardInterrupt
        return cross(bars, fast, slow)

    # What it encloses is a part of a function, and these lists change.
    about = {"symbol": "X", "mode": "record", "progress": False}
    monkeypatch.setattr("qml_plugin.provenance._function_sha256", lambda function: function.__qualname__)
    whole = sweep_signals(cross, BARS, GRID, strategy="counted", registry=f"sqlite:///{tmp_path / 'whole.db'}", **about)
    url = f"sqlite:///{tmp_path / 'r.db'}"
    with pytest.raises(KeyboardInterrupt):
        sweep_signals(counted, BARS, GRID, registry=url, **about)
    registry = PatternRegistry(url)
    assert {run["kind"]: run["status"] for run in registry.get_runs()} == {"sweep": "interrupted", "cell": "finished"}
    del asked[:]
    stops_at[0] = 0
    result = sweep_signals(counted, BARS, GRID, registry=url, resume=True, **about)
    assert len(asked) == 4, "the first two had finished"
    pd.testing.assert_frame_equal(result.table.drop(columns="run_id"), whole.table.drop(columns="run_id"))
    assert registry.get_run(result.run_id)["status"] == "finished"
    assert registry.n_trials("counted", registry.get_run(result.run_id)["data_hash"]) == 6


def test_points_that_the_registry_has_lost_are_played_again(tmp_path):
    url, about = f"sqlite:///{tmp_path / 'r.db'}", {"symbol": "X", "mode": "record", "progress": False}
    first = sweep_signals(cross, BARS, GRID, registry=url, **about)
    for file in tmp_path.glob("r.db*"):
        if file.is_file():
            file.unlink()
    again = sweep_signals(cross, BARS, GRID, registry=url, resume=True, **about)
    assert again.n_kept == 0
    assert PatternRegistry(url).finished_of(list(first.table["run_id"])) == set(again.table["run_id"])
    assert sweep_signals(cross, BARS, GRID, registry=url, resume=True, **about).n_kept == 6


def test_an_error_is_the_one_that_is_raised_where_the_folder_is_gone_too(tmp_path):
    url = f"sqlite:///{tmp_path / 'r.db'}"

    def stopped(bars, fast, slow):
        shutil.rmtree(tmp_path / "s")
        (tmp_path / "s").write_text("no folder")
        raise KeyboardInterrupt

    about = {"symbol": "X", "mode": "record", "progress": False, "folder": tmp_path / "s"}
    with (
        pytest.warns(RuntimeWarning, match="the end of the sweep could not be noted"),
        pytest.raises(KeyboardInterrupt),
    ):
        sweep_signals(stopped, BARS, GRID, registry=url, **about)
    assert [run["status"] for run in PatternRegistry(url).get_runs()] == ["interrupted"]


def test_a_value_without_end_and_an_objective_without_a_name_are_kept(tmp_path):
    def least(least, metrics):
        return max(least, metrics["return_frac"])

    grid = {**GRID, "most": [1.0, float("inf")]}
    result = sweep_signals(
        lambda bars, fast, slow, most: cross(bars, fast, slow), BARS, grid, objective=partial(least, -1.0), folder=tmp_path,
        progress=False,
    )  # fmt: skip
    assert result.objective == "partial"
    assert result.n_tested == 12
    assert '"inf"' in (result.folder / "manifest.json").read_text()


def test_resume_goes_on_with_no_other_function(tmp_path, monkeypatch):
    def of(lag):
        return lambda bars, fast, slow: cross(bars, fast + lag, slow)

    def read(bars, fast, slow):
        return cross(bars, fast + LAG, slow)

    about = {"strategy": "Cross", "folder": tmp_path, "resume": True, "progress": False}
    results = [sweep_signals(of(lag), BARS, GRID, **about) for lag in (0, 1, 1)]
    for lag in (0, 1):
        monkeypatch.setitem(globals(), "LAG", lag)
        results.append(sweep_signals(read, BARS, GRID, **about))
    first, other, same, by_global, other_global = (list(result.table["return_frac"]) for result in results)
    assert first == by_global != other == same == other_global
    assert results[1].run_id == results[2].run_id
    assert len({result.run_id for result in results}) == 4


def test_why_nothing_can_be_chosen_is_said_in_words_of_vectorbt(tmp_path):
    result = sweep_signals(lambda bars, n: np.zeros(len(bars), bool), BARS, {"n": [1]}, folder=tmp_path, progress=False)
    with pytest.raises(
        DataError, match=r"none of them closed a trade\. A position is closed by exits, by stop or target, or"
    ):
        result.best()


def test_a_point_that_fails_fails_alone(tmp_path):
    def troubled(bars, fast, slow):
        if fast == 5:
            return {"long_entries": bars.Close}
        bars["Close"] = 1.0  # reaches no other point
        return cross(BARS, fast, slow)

    url = f"sqlite:///{tmp_path / 'r.db'}"
    result = sweep_signals(troubled, BARS, GRID, symbol="X", registry=url, mode="record", progress=False)
    assert result.failed["fast"].tolist() == [5, 5]
    assert result.failed["error"].str.contains("long_entries holds float64, not True and False").all()
    assert result.n_tested == 4
    runs = PatternRegistry(url).get_runs(symbol="X")
    assert sorted(run["status"] for run in runs if run["kind"] == "cell") == ["failed"] * 2 + ["finished"] * 4
    (search,) = (run for run in runs if run["kind"] == "sweep")
    assert (search["status"], search["error"]) == ("failed", "2 of 6 points failed")


def test_changing_the_future_changes_nothing_that_was_decided_or_traded_before(tmp_path, taught):
    cut = 200
    changed = BARS.copy()
    changed.iloc[cut:] = random_walk(300, 77).iloc[cut:].to_numpy()
    past = []
    for name, frame in (("a", BARS), ("b", changed)):
        url = taught(tmp_path / f"{name}.db")
        result = sweep_signals(cross, frame, GRID, symbol="X", registry=url, mode="gate", progress=False)
        registry, known = PatternRegistry(url), pd.Timestamp(frame.index[cut])
        for run_id in result.table["run_id"]:
            trades = result.trades(run_id)
            past.append(trades[(trades["ExitBar"] < cut) & ~trades["IsOpen"]].drop(columns="PnL").to_csv())
            rows = [(d, registry.get_pattern(d["pattern_id"])) for d in registry.get_decisions(run_id)]
            before = [d for d, pattern in rows if pattern["detection_time"] < known]
            past.append([{key: d[key] for key in ("pattern_id", "action", "confidence", "reason")} for d in before])
            past.append(result.equity(run_id)["Equity"][:cut].tolist())
    assert past[: len(past) // 2] == past[len(past) // 2 :]
    assert sum(map(len, past[1::3])) > 60


def test_many_markets_need_not_have_the_same_times(tmp_path):
    data = {"A": BARS, "B": random_walk(250, 6)}
    result = sweep_signals(cross, data, GRID, folder=tmp_path, progress=False, n_points=3)
    assert result.table["symbol"].tolist() == ["A"] * 3 + ["B"] * 3
    assert len(result.equity(result.table["run_id"][5])) == 250
    alone = sweep_signals(cross, data["B"], GRID, folder=tmp_path, progress=False, n_points=3)
    assert alone.table["return_frac"].tolist() == result.table["return_frac"][3:].tolist()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"grid": {}}, "the grid is empty"),
        ({"grid": {"fast": [1], "slwo": [2]}}, "does not take bars and the parameters fast, slwo: missing a required argument"),
        ({"grid": {"status": [1]}}, "the function does not take bars and the parameters status"),
        ({"signals": lambda bars, status: bars, "grid": {"status": [1]}}, "a parameter called 'status' cannot be swept"),
        ({"signals": MovingAverageCross, "grid": {"fats": [1]}}, "MovingAverageCross has no parameter 'fats'.* Did you mean 'fast'"),
        ({"signals": MovingAverageCross, "grid": {"mode": ["gate"]}}, "Settings of the memory, and the size, are the same"),
        ({"signals": dict}, "dict has no arrays. Give an ArrayStrategy"),
        ({"signals": BARS.Close > 1}, "signals is a Series. Give a function of bars and parameters"),
        ({"constraint": lambda p: False}, "none of the 6 points of the grid meets the constraint"),
        ({"objective": "sharp"}, "objective 'sharp' is no metric. Use one of n_trades"),
        ({"size_type": "lots"}, "size_type 'lots' is unknown"),
        ({"fes": 0.1}, "sweep_signals has no option 'fes'.* Did you mean 'fees'"),
        ({"fees": 2.0}, "fees is 2.0. It is a fraction"),
        ({"mode": "maybe"}, "mode 'maybe' is unknown"),
        ({"registry": "sqlite:///x.db"}, "sweep_signals.symbol is None, but a registry"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_refused_before_anything_is_played(changed, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = {"signals": cross, "data": BARS, "grid": GRID, "progress": False} | changed
    with pytest.raises(DataError, match=message):
        sweep_signals(**arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "the function gave nothing. Return the long entries"),
        ((BARS.Close > 1, BARS.Close > 2), "the function gave a tuple"),
        ({"entries": BARS.Close > 1}, "the function gave 'entries'. It may give long_entries, short_entries"),
        (pd.DataFrame({1: BARS.Close > 1, 2: BARS.Close > 1}), "the function gave long_entries of 2 columns. A point is one"),
    ],
)  # fmt: skip
def test_what_a_function_may_not_give_is_named(given, message, tmp_path):
    result = sweep_signals(lambda bars, fast: given, BARS, {"fast": [1]}, folder=tmp_path, progress=False)
    assert result.failed["error"].str.contains(message).all()
    single = pd.DataFrame({1: BARS.Close > BARS.Close.shift(fill_value=1e9)})
    assert sweep_signals(lambda bars, fast: single, BARS, {"fast": [1]}, folder=tmp_path, progress=False).n_tested == 1
