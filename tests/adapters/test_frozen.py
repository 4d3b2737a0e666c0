"""Runs that are decided by a model that was trained once: never on what it has seen, never without it."""

import pytest
from backtesting import Backtest

from qml_plugin import PatternRegistry, sweep
from qml_plugin.adapters.reproduce import reproduce
from qml_plugin.errors import DataError, LookAheadError, ModelLoadError
from qml_plugin.gate.training import train_on_registry
from strategies.moving_average import MovingAverageCross

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:backtesting"),
    pytest.mark.filterwarnings("ignore:Some trades remain open"),
]
N_PAST = 2_000


def cross(data, url, **parameters):
    host = Backtest(data, MovingAverageCross, cash=1_000_000, exclusive_orders=True, finalize_trades=True)
    return host.run(symbol="EURUSD", timeframe="1h", registry=url, fast=5, slow=15, **parameters)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, eurusd):
    """A registry with a past, and a model of that past that is active."""
    folder = tmp_path_factory.mktemp("frozen")
    url = f"sqlite:///{folder}/x.db"
    cross(eurusd.iloc[:N_PAST], url, mode="record")
    registry = PatternRegistry(url)
    predictor = train_on_registry(registry, strategy="MovingAverageCross", timeframe="1h")[0]
    card = predictor.save(folder / "m.ubj")
    model_id = registry.register_model(folder / "m.ubj", card, strategy="MovingAverageCross", timeframe="1h")
    registry.activate_model(model_id)
    return url, model_id, predictor


def later(eurusd):
    """Bars whose first entry lies behind everything that the model has seen."""
    return eurusd.iloc[N_PAST + 100 : N_PAST + 900]


def test_a_frozen_model_decides_what_comes_after_it(trained, eurusd):
    url, model_id, predictor = trained
    memory = cross(later(eurusd), url, gate_model="frozen", min_confidence=0.4)["_strategy"].qml
    assert len(memory.decisions) > 10
    assert {decision.model for decision in memory.decisions} == {"frozen"}
    names = list(predictor.card.features)
    for pattern, decision in zip(memory.patterns, memory.decisions, strict=True):
        expected = predictor.predict(dict(zip(names, pattern.features.tolist(), strict=True)))
        assert decision.confidence == pytest.approx(expected, abs=1e-12)
    run = PatternRegistry(url).get_run(memory.run.run_id)
    assert run["params"]["qml"]["model_id"] == model_id
    assert reproduce(url, memory.run.run_id).is_identical


def test_the_points_of_a_sweep_are_decided_by_it_too(trained, eurusd, tmp_path):
    url, _, _ = trained
    alone = cross(later(eurusd), url, gate_model="frozen", min_confidence=0.42)["_strategy"].qml
    about = {
        "cash": 1_000_000,
        "exclusive_orders": True,
        "finalize_trades": True,
        "symbol": "EURUSD",
        "timeframe": "1h",
    }
    about |= {"slow": 15, "gate_model": "frozen", "min_confidence": 0.42, "registry": url, "progress": False}
    swept = sweep(MovingAverageCross, later(eurusd), {"fast": [5]}, folder=tmp_path, **about)
    assert swept.table["run_id"].tolist() == [alone.run.run_id]
    decisions = PatternRegistry(url).get_decisions(alone.run.run_id)
    assert [one["confidence"] for one in decisions] == [one.confidence for one in alone.decisions]
    assert {one["model"] for one in decisions} == {"frozen"}


def test_it_refuses_entries_from_before_what_it_has_seen(trained, eurusd):
    with pytest.raises(LookAheadError, match="A frozen model may only score what comes after"):
        cross(eurusd.iloc[: N_PAST - 500], trained[0], gate_model="frozen", min_confidence=0.4)


def test_a_damaged_model_starts_no_run(trained, eurusd, tmp_path):
    url, model_id, _ = trained
    file = PatternRegistry(url).get_model(model_id)["path"]
    whole, n_runs = file.read_bytes(), PatternRegistry(url).get_statistics()["n_runs"]
    file.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(ModelLoadError, match="SHA-256"):
            cross(later(eurusd), url, gate_model="frozen", min_confidence=0.41)
    finally:
        file.write_bytes(whole)
    assert PatternRegistry(url).get_statistics()["n_runs"] == n_runs


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"min_confidence": None}, "skips below min_confidence, which is None"),
        ({"timeframe": "2h"}, "no model is active for MovingAverageCross on 2h.*qml train --activate"),
        ({"registry": None}, "takes its model from a registry, and registry is None"),
    ],
)
def test_what_it_needs_is_asked_for(trained, eurusd, parameters, message):
    bars = later(eurusd)
    if "timeframe" in parameters:
        bars = bars.iloc[::2]
    given = {"symbol": "EURUSD", "timeframe": "1h", "registry": trained[0], "min_confidence": 0.4} | parameters
    with pytest.raises(DataError, match=message):
        Backtest(bars, MovingAverageCross, cash=1e6).run(gate_model="frozen", **given)
