"""What a run leaves in the registry, and that running again leaves the same."""

import hashlib
import math
import os
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from backtesting import Backtest, Strategy
from backtesting.lib import crossover

from qml_plugin import PatternMixin, PatternRegistry, Setup
from qml_plugin.adapters.reproduce import reproduce
from qml_plugin.errors import DataError, RegistryBusy, RegistryCorrupt, RegistryError
from qml_plugin.features import remove_user_feature, user_feature
from qml_plugin.records import BarrierRule
from strategies.moving_average import MovingAverageCross
from strategies.qml import QMLStrategy
from tests.adapters.hosts import Remembered

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:backtesting"),
    pytest.mark.filterwarnings("ignore:Some trades remain open"),
]
TABLES = ("ml_pattern_registry", "experiments", "run_decisions")


def rows(path, query, *values):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query, values).fetchall()


CIRCUMSTANCES = (
    "started_at", "finished_at", "created_at", "updated_at", "heartbeat_at", "pid", "process_started",
)  # fmt: skip
SNAPSHOT = ("snapshot_seq", "snapshot_patterns", "snapshot_sha256")


def contents(path, leave_out=CIRCUMSTANCES):
    """Every value of every table, without the clock's and the process's."""
    found = {}
    with closing(sqlite3.connect(path)) as connection:
        for table in TABLES:
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            kept = ", ".join(name for name in names if name not in leave_out)
            found[table] = sorted(map(repr, connection.execute(f"SELECT {kept} FROM {table}").fetchall()))
    return found


def cross(data, path, symbol="GOOG", **parameters):
    host = Backtest(
        data, MovingAverageCross, cash=1_000_000, commission=0.001, exclusive_orders=True, finalize_trades=True
    )
    return host.run(symbol=symbol, registry=f"sqlite:///{path}", **parameters)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "experiments.db"


def test_every_entry_is_registered_with_features_outcome_and_trade(goog, path):
    stats = cross(goog, path, mode="gate")
    memory = stats["_strategy"].qml
    assert len(memory.patterns) == len(rows(path, "SELECT pattern_id FROM ml_pattern_registry")) > 30
    columns = (
        "symbol, timeframe, strategy, side, barrier_outcome, r_multiple, exit_reason, trade_outcome, features_json"
    )
    for row in rows(path, f"SELECT {columns} FROM ml_pattern_registry"):
        assert row[:3] == ("GOOG", "1d", "MovingAverageCross")
        assert row[3] in (-1, 1)
        assert None not in row[4:9]
    by_trade = stats["_trades"].groupby("EntryBar")["ReturnPct"].first()
    for pattern in memory.patterns:
        assert pattern.trade_return_frac == pytest.approx(by_trade[pattern.entry.bar + 1], abs=1e-12)
    ((status, metrics),) = rows(path, "SELECT status, metrics_json FROM experiments")
    assert status == "finished"
    assert '"n_entries":40' in metrics


def test_a_gate_that_fails_closed_trades_nothing_before_it_has_shown_skill_and_learns_all_the_same(goog, path):
    stats = cross(goog.iloc[:900], path, mode="gate", on_abstain="fail_closed")
    assert stats["# Trades"] == 0
    reasons = {decision.reason for decision in stats["_strategy"].qml.decisions}
    assert all(reason.endswith("(fail_closed)") for reason in reasons)
    assert rows(path, "SELECT count(barrier_outcome) FROM ml_pattern_registry")[0][0] > 10


def test_quasimodo_geometry_is_registered(goog, path):
    stats = Backtest(goog, QMLStrategy, cash=1_000_000).run(symbol="GOOG", registry=f"sqlite:///{path}")
    pattern = stats["_strategy"].qml.patterns[-1]
    assert pattern.entry.pattern_type in ("bullish_qml", "bearish_qml")
    assert len(pattern.entry.setup.points) == 5
    stored = PatternRegistry(f"sqlite:///{path}").get_pattern(pattern.pattern_id)
    assert stored["setup"]["points"][0]["bar"] == pattern.entry.setup.points[0].bar
    assert np.isfinite(stored["features"]["geo_head_depth_atr"])


def test_running_twice_leaves_the_same_rows_ids_labels_and_outcomes(goog, path):
    cross(goog, path, mode="shadow")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE ml_pattern_registry SET user_label = 'ignore', trade_outcome = 12.5 WHERE rowid % 2")
    before = contents(path, CIRCUMSTANCES + SNAPSHOT)
    cross(goog, path, mode="shadow")
    after = contents(path, CIRCUMSTANCES + SNAPSHOT)
    assert before["ml_pattern_registry"] == after["ml_pattern_registry"]
    assert before["experiments"] == after["experiments"]
    assert len(before["run_decisions"]) == len(after["run_decisions"])


def test_nothing_learns_from_a_pattern_labelled_ignore(goog, path):
    first = cross(goog, path, mode="shadow")["_strategy"].qml
    ignored = first.patterns[0].pattern_id
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE ml_pattern_registry SET user_label = 'ignore' WHERE pattern_id = ?", (ignored,))
    again = cross(goog, path, mode="shadow")["_strategy"].qml
    assert any(n.pattern_id == ignored for decision in first.decisions for n in decision.neighbours)
    assert not any(n.pattern_id == ignored for decision in again.decisions for n in decision.neighbours)
    assert again.decisions[-1].n_known == first.decisions[-1].n_known - 1


def test_a_longer_series_fills_in_what_was_open(goog, path):
    cross(goog.iloc[:1200], path, mode="record")
    first = rows(path, "SELECT count(*), sum(barrier_outcome IS NULL) FROM ml_pattern_registry")[0]
    cross(goog.iloc[:1300], path, mode="record")
    kept = rows(
        path,
        "SELECT count(*), sum(barrier_outcome IS NULL) FROM ml_pattern_registry WHERE detection_time < ?",
        str(goog.index[1200]),
    )[0]
    assert kept[0] == first[0]
    assert kept[1] <= first[1]


def test_partial_closes_are_one_return_weighted_by_size(goog):
    stats = Backtest(goog.iloc[:700], Remembered, cash=100_000, hedging=True, finalize_trades=True).run()
    memory = stats["_strategy"].qml
    legs = stats["_trades"].assign(Cost=lambda t: t["Size"].abs() * t["EntryPrice"])
    closed = [value for value in memory.returns.values() if value is not None]
    total = sum(memory.returns[p.pattern_id] is not None for p in memory.patterns if p.pattern_id in memory.returns)
    assert total == len(closed) > 10
    weighted = legs["PnL"].sum() / legs["Cost"].sum()
    assert min(closed) - 1e-12 <= weighted <= max(closed) + 1e-12


def test_a_run_that_raises_is_recorded_as_failed(goog, path):
    class Breaks(PatternMixin, Strategy):
        symbol, registry = "GOOG", f"sqlite:///{path}"

        def init(self):
            pass

        def next(self):
            if len(self.data) == 50:
                self.buy()
            if len(self.data) == 60:
                raise ZeroDivisionError("my own mistake")

    with pytest.raises(ZeroDivisionError, match="my own mistake"):
        Backtest(goog.iloc[:100], Breaks).run()
    assert rows(path, "SELECT status, error FROM experiments") == [("failed", "ZeroDivisionError: my own mistake")]
    assert rows(path, "SELECT count(*) FROM ml_pattern_registry") == [(1,)]


def spoilt(frame, column, row, value):
    frame = frame.astype(float)
    frame.iloc[row, frame.columns.get_loc(column)] = value
    return frame


@pytest.mark.parametrize(
    ("data", "parameters", "error", "message"),
    [
        (lambda f: spoilt(f, "High", 30, 1.0), {}, DataError, r"High 1 is below .* at row 30"),
        (lambda f: spoilt(f, "Low", 30, -1.0), {}, DataError, r"Low is -1 at row 30"),
        (lambda f: f.iloc[[0, 1, 1, *range(2, 100)]], {}, DataError, r"duplicate time at row 2"),
        (lambda f: f.reset_index(drop=True), {}, DataError, r"bars have no times"),
        (lambda f: f, {"mode": "learn"}, DataError, r"mode 'learn' is unknown. Use one of 'record', 'shadow', 'gate'"),
        (lambda f: f, {"on_skip": "cry"}, DataError, r"on_skip 'cry' is unknown. Use one of 'flat', 'hold'"),
        (lambda f: f, {"min_confidence": 60}, DataError, r"min_confidence is 60"),
        (lambda f: f, {"on_abstain": "cry"}, DataError, r"on_abstain 'cry' is unknown. Use one of 'fail_open', 'fail_closed'"),
        (lambda f: f, {"teachers": "none"}, DataError, r"teachers 'none' is unknown. Use one of 'shadow', 'executed'"),
        (lambda f: f, {"cost_r": -1}, DataError, r"cost_r is -1"),
        (lambda f: f, {"n_neighbours": 0}, DataError, r"n_neighbours is 0"),
        (lambda f: f, {"timeframe": "daily"}, DataError, r"timeframe 'daily' is not understood"),
        (lambda f: f, {"timeframe": "1w"}, DataError, r"begins 1 day, 0:00:00 after the bar before it, but timeframe is '1w'"),
        (lambda f: f, {"symbol": None}, DataError, r"symbol is None, but a registry tells markets apart by it"),
        (lambda f: f, {"bar_label": "mid"}, DataError, r"bar_label 'mid' is unknown"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Data index")
def test_bad_input_is_refused_and_the_database_unchanged(goog, path, data, parameters, error, message):
    cross(goog.iloc[:300], path, mode="record")
    before = hashlib.sha256(path.read_bytes()).digest()
    with pytest.raises(error, match=message):
        cross(data(goog.iloc[:100]), path, **parameters)
    assert hashlib.sha256(path.read_bytes()).digest() == before


@pytest.mark.parametrize(
    ("registry", "error", "message"),
    [
        ("experiments.db", RegistryError, r"'experiments.db' is not a database URL"),
        ("oracle://host/db", RegistryError, r"names the database 'oracle'"),
        ("sqlite:////proc/nowhere/x.db", RegistryError, r"cannot be opened at /proc/nowhere/x.db"),
        ("sqlite://", DataError, r"would vanish with the run"),
        (7, DataError, r"registry is a int"),
    ],
)
def test_a_registry_that_cannot_be_opened(goog, registry, error, message):
    with pytest.raises(error, match=message):
        Backtest(goog.iloc[:100], MovingAverageCross).run(symbol="GOOG", registry=registry)


def test_a_database_that_is_not_ours_is_left_alone(goog, path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(RegistryCorrupt, match=r"SQLite file of another program .*tables: mine"):
        cross(goog.iloc[:100], path)
    assert path.read_bytes() == before


def test_the_mixin_must_come_first():
    with pytest.raises(DataError, match=r"puts Strategy before PatternMixin.*class Wrong\(PatternMixin, Strategy\)"):

        class Wrong(Strategy, PatternMixin):
            def init(self): ...
            def next(self): ...


def test_settings_and_the_strategys_parameters_are_kept_apart(goog, path):
    cross(goog.iloc[:300], path, mode="record", fast=7)
    ((params,),) = rows(path, "SELECT params_json FROM experiments")
    assert '"fast":7' in params
    assert '"slow":50' in params
    assert '"mode":"record"' in params
    assert str(path) not in params, "the place of the registry does not make another run"


RUN = """
import sys
from backtesting import Backtest
from backtesting.test import EURUSD
from strategies.moving_average import MovingAverageCross
Backtest(EURUSD.iloc[:3000], MovingAverageCross, cash=1_000_000, exclusive_orders=True, finalize_trades=True).run(
    symbol="EURUSD", timeframe="1h", registry="sqlite:///" + sys.argv[1], mode="gate", fast=5, slow=15)
"""


def test_the_same_bits_for_any_number_of_threads(tmp_path):
    found = []
    for threads in ("1", "4"):
        path = tmp_path / f"{threads}.db"
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "TQDM_DISABLE": "1"}
        subprocess.run([sys.executable, "-W", "ignore", "-c", RUN, str(path)], env=environment, check=True, timeout=200)
        found.append(contents(path))
    assert found[0] == found[1]
    assert rows(tmp_path / "1.db", "SELECT count(confidence) FROM run_decisions")[0][0] > 50


OPTIMIZE = """
import sys, warnings
warnings.simplefilter("ignore")
import faiss, numpy as np, xgboost
from backtesting import Backtest
from backtesting.test import GOOG
from sklearn.ensemble import HistGradientBoostingClassifier
from strategies.moving_average import MovingAverageCross

class Cross(MovingAverageCross):
    symbol, timeframe, registry = "GOOG", "1d", "sqlite:///" + sys.argv[1]
    mode = "gate"

rng = np.random.default_rng(0)
X, y = rng.normal(size=(4000, 40)).astype("float32"), rng.random(4000) > 0.5
faiss.omp_set_num_threads(4)
faiss.knn(X, X, 5)
xgboost.train({"nthread": 4}, xgboost.DMatrix(X, y), 5)
HistGradientBoostingClassifier(max_iter=5).fit(X, y)
stats, heatmap = Backtest(GOOG, Cross, cash=1_000_000, exclusive_orders=True, finalize_trades=True).optimize(
    fast=[4, 6], slow=[12, 16], maximize="SQN", return_heatmap=True)
print(len(heatmap))
"""


def test_optimize_neither_hangs_nor_loses_rows(tmp_path):
    path = tmp_path / "experiments.db"
    cross_data = tmp_path / "seed.py"
    cross_data.write_text(OPTIMIZE)
    done = subprocess.run(
        [sys.executable, str(cross_data), str(path)],
        env={**os.environ, "TQDM_DISABLE": "1"}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "4"
    assert rows(path, "SELECT count(*), count(DISTINCT params_hash) FROM experiments") == [(4, 4)]
    decided = rows(path, "SELECT count(*) FROM run_decisions GROUP BY run_id")
    assert len(decided) == 4
    assert min(count for (count,) in decided) > 30


def test_without_a_registry_nothing_is_written(goog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stats = Backtest(goog, MovingAverageCross, exclusive_orders=True, finalize_trades=True).run()
    table = stats["_strategy"].qml.table()
    assert len(table) == 40
    assert set(table["action"]) == {"abstain"}
    assert list(tmp_path.iterdir()) == []


def test_a_setup_as_tag_is_registered_and_any_other_tag_is_the_users(goog):
    class Tagged(PatternMixin, Strategy):
        symbol = "GOOG"

        def init(self):
            self.fast, self.slow = (
                self.I(lambda x, n: pd.Series(x).rolling(n).mean().to_numpy(), self.data.Close, n) for n in (5, 20)
            )

        def next(self):
            bar = len(self.data) - 1
            if crossover(self.fast, self.slow):
                self.buy(tag=Setup("my_pattern", 1, (), bar))
            elif crossover(self.slow, self.fast):
                self.sell(tag="why not")

    stats = Backtest(goog.iloc[:500], Tagged, exclusive_orders=True, finalize_trades=True).run()
    types = [p.entry.pattern_type for p in stats["_strategy"].qml.patterns]
    assert set(types) == {"my_pattern", "short_signal"}
    assert {tag if isinstance(tag, str) else tag.pattern_type for tag in stats["_trades"]["Tag"]} == {
        "my_pattern",
        "why not",
    }


@pytest.mark.filterwarnings("ignore:.*dayofweek")
def test_a_past_recorded_with_other_features_is_named_in_a_warning(goog, path):
    cross(goog, path, mode="record")
    user_feature("body", warmup=0, definition="C - O")(lambda bars: bars.Close - bars.Open)
    try:
        with pytest.warns(UserWarning, match=r"holds \d+ resolved patterns that were recorded without user_body"):
            cross(goog, path, mode="gate")
    finally:
        remove_user_feature("body")


# What makes a run another run


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"barriers": BarrierRule(stop_atr=1.5000001)},
        {"take_profit_rr": 3.0},
        {"on_abstain": "fail_closed"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_setting_that_may_change_a_run_makes_it_another(goog, path, change):
    cross(goog.iloc[:300], path, mode="shadow")
    cross(goog.iloc[:300], path, mode="shadow", **change)
    assert rows(path, "SELECT count(*) FROM experiments") == [(2,)]


@pytest.mark.filterwarnings("ignore:Data index")
def test_other_columns_and_another_time_zone_make_it_another(goog, path):
    frame = goog.iloc[:300]
    frames = [frame, frame.assign(Signal=0.0), frame.assign(Signal=1.0), frame.tz_localize("UTC"), frame.copy()]
    for data in frames:
        cross(data, path, mode="record")
    assert rows(path, "SELECT count(*) FROM experiments") == [(4,)]
    registry = PatternRegistry(f"sqlite:///{path}")
    others = [run["run_id"] for run in registry.get_runs() if run["params"]["data"]["columns"]]
    with pytest.raises(
        DataError, match=r"had bars with other columns beside \(Signal\), which the registry does not keep"
    ):
        reproduce(registry.url, others[0])


def test_a_pattern_labelled_by_hand_before_it_resolved_teaches_the_gate(goog, path):
    registry = PatternRegistry(f"sqlite:///{path}")
    data = {
        "symbol": "GOOG", "timeframe": "1d", "pattern_type": "seen", "detection_time": "1999-01-04", "detection_idx": 3,
        "entry_price": 100.0, "stop_loss": 95.0, "take_profit": 110.0, "validity_score": None,
        **dict.fromkeys(f"{point}_{what}" for point in ("left_shoulder", "head", "right_shoulder") for what in ("price", "idx")),
    }  # fmt: skip
    pattern_id = registry.register_pattern(data, {"ctx_rsi_14": 30.0})
    registry.label_pattern(pattern_id, "win")
    future = goog.iloc[:400].set_axis(pd.date_range("2100-01-01", periods=400, freq="D"), axis=0)
    decisions = cross(future, path, mode="gate")["_strategy"].qml.decisions
    assert decisions[0].n_known == 1
    assert math.isnan(registry.get_pattern(pattern_id)["r_multiple"] or math.nan)


def test_a_sign_of_life_that_cannot_be_recorded_costs_a_warning_only(goog, path, monkeypatch):
    monkeypatch.setattr("qml_plugin.adapters.recorded_run._SIGN_OF_LIFE_US", 0)
    monkeypatch.setattr("qml_plugin.registry.PatternRegistry.note_alive", locked)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cross(goog.iloc[:300], path, mode="record")
    assert any("a sign of life of the run could not be recorded: locked" in str(one.message) for one in caught)
    assert rows(path, "SELECT status FROM experiments") == [("finished",)]


def locked(registry, run_id):
    raise RegistryBusy("locked")
