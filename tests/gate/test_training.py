"""A frozen model from a registry: what it is trained on, and that what comes later changes nothing."""

import numpy as np
import pytest

from qml_plugin.clock import to_datetime
from qml_plugin.errors import DataError, LookAheadError
from qml_plugin.features import CATALOGUE
from qml_plugin.gate.predictor import XGBoostPredictor
from qml_plugin.gate.training import train_on_registry
from qml_plugin.registry import PatternRegistry
from tests.registry.registry_samples import HOUR, START, execute, make_outcome, make_pattern, make_run, save


def patterns(bars, seed=0, **changes):
    """Entries whose first feature moves the odds of a win."""
    made = []
    for bar in bars:
        rng = np.random.default_rng([seed, bar])
        features = rng.normal(size=len(CATALOGUE)).astype(np.float32)
        is_win = rng.random() < 1 / (1 + np.exp(-2 * features[0]))
        outcome = make_outcome(bar, 1.5 if is_win else -1.0)
        made.append(make_pattern(bar, features, CATALOGUE.feature_set, outcome=outcome, **changes))
    return made


@pytest.fixture
def path(tmp_path):
    return tmp_path / "registry.db"


@pytest.fixture
def registry(path):
    registry = PatternRegistry(f"sqlite:///{path}")
    save(registry, patterns(range(0, 900, 3)), names=None)
    return registry


def test_it_is_trained_on_what_the_registry_knows(registry):
    predictor, strategy, timeframe = train_on_registry(registry)
    card = predictor.card
    assert (strategy, timeframe) == ("Cross", "1h")
    assert (card.n_rows, card.feature_set) == (300, CATALOGUE.feature_set)
    assert dict(card.features) == dict(CATALOGUE.versions)
    assert card.trained_through == START + (897 + 5) * HOUR
    assert card.metrics["brier_skill"] > 0
    assert card.effective_labels < 300  # neighbours overlap by an hour
    X, y = registry.get_training_data()
    direct = XGBoostPredictor().train(X, y)
    assert direct.predict(X).tobytes() == predictor.predict(X).tobytes()
    assert predictor.predict(registry.get_pattern(X.index[7])["features"]) == predictor.predict(X)[7]


def test_a_model_as_of_then_does_not_change_when_later_patterns_do(registry, path, tmp_path):
    as_of = START + 700 * HOUR
    X = registry.get_training_data(1, as_of)[0]
    first = train_on_registry(registry, as_of=as_of)[0]
    assert first.card.trained_through <= as_of
    execute(
        path,
        "UPDATE ml_pattern_registry SET barrier_outcome = CASE barrier_outcome WHEN 'win' THEN 'loss' ELSE 'win' END, "
        "features_json = replace(features_json, '-', ''), r_multiple = -r_multiple WHERE resolved_at > ?",
        (to_datetime(as_of).isoformat(" ", "microseconds"),),
    )
    save(registry, patterns(range(800, 2000, 3), seed=1, symbol="MSFT"), make_run("later"), names=None)
    second = train_on_registry(registry, as_of=as_of)[0]
    hashes = [model.save(tmp_path / f"{n}.ubj").sha256 for n, model in enumerate((first, second))]
    assert hashes[0] == hashes[1]
    assert first.predict(X).tobytes() == second.predict(X).tobytes()
    assert first.card.metrics == second.card.metrics
    assert (first.card.slope, first.card.n_rows) == (second.card.slope, second.card.n_rows)
    now = train_on_registry(registry)[0]
    assert now.save(tmp_path / "now.ubj").sha256 != hashes[0]
    later = dict(registry.get_pattern(registry.get_training_data()[0].index[-1]))
    assert 0 < first.predict(later["features"], as_of=later["known_at"]) < 1
    with pytest.raises(LookAheadError):
        now.predict(later["features"], as_of=START + 500 * HOUR)


def test_save_register_activate_and_score(registry, tmp_path):
    predictor, strategy, timeframe = train_on_registry(registry)
    card = predictor.save(tmp_path / "m.json")
    model_id = registry.register_model(tmp_path / "m.json", card, strategy=strategy, timeframe=timeframe)
    registry.activate_model(model_id)
    model = registry.active_model("Cross", "1h")
    loaded = XGBoostPredictor.load(model["path"], card=model["card"])
    X = registry.get_training_data()[0]
    assert loaded.predict(X).tobytes() == predictor.predict(X).tobytes()
    assert model["test_accuracy"] == card.metrics["accuracy"]


def test_it_learns_from_one_strategy_and_timeframe_only(registry):
    save(registry, patterns(range(0, 400, 4), strategy="Other"), make_run("2"), names=None)
    save(registry, patterns(range(0, 80, 4), strategy="Other", timeframe="4h"), make_run("3"), names=None)
    with pytest.raises(DataError, match=r"strategy is None, and there are known results of Cross, Other. Choose one"):
        train_on_registry(registry)
    with pytest.raises(DataError, match="strategy is 'Nobody', and there are known results of Cross, Other"):
        train_on_registry(registry, strategy="Nobody")
    with pytest.raises(DataError, match="timeframe is None, and there are known results of 1h, 4h"):
        train_on_registry(registry, strategy="Other")
    with pytest.raises(
        DataError, match="20 entries of Other on 4h have a known result, 30 are asked for: 10 are missing"
    ):
        train_on_registry(registry, strategy="Other", timeframe="240m")
    predictor, strategy, timeframe = train_on_registry(registry, strategy="Other", timeframe="60m")
    assert (predictor.card.n_rows, strategy, timeframe) == (100, "Other", "1h")
    assert predictor.card.trained_through == START + (396 + 5) * HOUR
    assert train_on_registry(registry, strategy="Cross")[0].card.n_rows == 300


def test_too_few_results_say_how_many_are_missing(registry):
    with pytest.raises(DataError, match="300 patterns have a known result, 400 are asked for: 100 are missing"):
        train_on_registry(registry, min_labels=400)
