"""XGBoostPredictor: what it says, what it was judged by, and what it refuses."""

import pickle
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from qml_plugin.clock import to_datetime
from qml_plugin.errors import DataError, FeatureMismatch, LookAheadError, NotFitted
from qml_plugin.gate.predictor import XGBoostPredictor
from qml_plugin.labels.weights import average_uniqueness
from tests.gate import worlds
from tests.gate.predictors import NAMES, predictor, table, trained, world


def test_it_ranks_what_it_never_saw_and_is_calibrated():
    model = trained(world(800, 1))
    assert model.card.speaks == "xgboost"
    features, is_win, *_ = worlds.linear(4000, 2, strength=1.0)
    confidence = model.predict(table(features))
    assert confidence.shape == (4000,)
    assert ((confidence > 0) & (confidence < 1)).all()
    assert np.mean((confidence - is_win) ** 2) < 0.92 * np.mean((is_win.mean() - is_win) ** 2)
    for low, high in ((0.1, 0.4), (0.4, 0.6), (0.6, 0.9)):
        inside = (confidence >= low) & (confidence < high)
        assert abs(confidence[inside].mean() - is_win[inside].mean()) < 0.1


def test_the_figures_are_those_of_new_data():
    model = trained(world(1500, 1))
    features, is_win, *_ = worlds.linear(6000, 2, strength=1.0)
    confidence = model.predict(table(features))
    skill = 1 - np.mean((confidence - is_win) ** 2) / np.mean((is_win.mean() - is_win) ** 2)
    metrics = model.card.metrics
    # Out-of-fold models are smaller than the last one, so their figures are a little worse.
    assert skill - 0.08 < metrics["brier_skill"] < skill + 0.02
    assert abs(metrics["accuracy"] - np.mean((confidence >= 0.5) == is_win)) < 0.05
    assert metrics["accuracy"] > metrics["accuracy_base_rate"] + 0.05
    assert 0.6 < metrics["auc"] < 0.85


def test_noise_has_no_skill_in_its_card():
    skills = [trained(world(300, seed, 0.0)).card.metrics["brier_skill"] for seed in range(12)]
    assert max(skills) < 0.05
    assert np.mean(skills) < 0.005


def test_no_figure_of_a_block_changes_when_what_is_known_later_does():
    # The first 60 % of the entries fill the blocks before the last two, whatever comes after.
    from qml_plugin.gate.predictor import _walk_forward

    features, is_win, weight, known_at, resolved_at = worlds.linear(600, 4, strength=1.0)
    first = _walk_forward(features, is_win, weight, known_at, resolved_at, 3)
    later = np.arange(400, 600)
    features[later] = 9.0
    is_win[later] = ~is_win[later]
    second = _walk_forward(features, is_win, weight, known_at, resolved_at, 3)
    for one, two in zip(
        (first.score, first.confidence, first.base_rate),
        (second.score, second.confidence, second.base_rate),
        strict=True,
    ):
        assert one[:400].tobytes() == two[:400].tobytes()
        assert not np.array_equal(one[500:], two[500:])


def test_labels_that_were_open_are_purged_from_what_scores_a_block():
    from qml_plugin.gate.predictor import _walk_forward

    features, is_win, weight, known_at, resolved_at = worlds.linear(600, 4, strength=1.0)
    resolved_at[:100] = known_at[350] + 1  # open until within the third block of 100
    first = _walk_forward(features, is_win, weight, known_at, resolved_at, 3)
    is_win[:100] = ~is_win[:100]
    second = _walk_forward(features, is_win, weight, known_at, resolved_at, 3)
    np.testing.assert_array_equal(first.base_rate[:400], second.base_rate[:400])
    assert np.isnan(first.base_rate[:200]).all()
    assert not np.array_equal(first.base_rate[400:], second.base_rate[400:])


def test_the_metrics_by_hand():
    from qml_plugin.gate.predictor import _metrics, _OutOfFold

    confidence = np.array([np.nan, 0.8, 0.4, 0.3, 0.6])
    base = np.array([np.nan, 0.6, 0.6, 0.6, 0.6])
    is_win = np.array([True, True, True, False, False])
    weight = np.array([9.0, 1.0, 1.0, 2.0, 1.0])
    metrics = _metrics(_OutOfFold(confidence, confidence, base), is_win, weight)
    brier = (0.04 + 0.36 + 2 * 0.09 + 0.36) / 5
    base_brier = (0.16 + 0.16 + 2 * 0.36 + 0.36) / 5
    assert metrics == pytest.approx({
        "n_scored": 4, "brier": brier, "brier_base_rate": base_brier, "brier_skill": 1 - brier / base_brier,
        "accuracy": 3 / 5, "accuracy_base_rate": 2 / 5, "win_share": 2 / 5,
        "auc": (3 + 2) / 6,  # of six weighted pairs the win of 0.4 loses to the loss of 0.6
    })  # fmt: skip


@pytest.mark.parametrize(("n_entries", "n_scored"), [(1, 0), (5, 0), (20, 0), (40, 0)])
def test_few_entries_give_the_base_rate_and_no_figures(n_entries, n_scored):
    X, y, known_at, resolved_at = world()
    model = trained((X[:n_entries], y[:n_entries], known_at[:n_entries], resolved_at[:n_entries]))
    card = model.card
    assert (card.speaks, card.slope, card.metrics["n_scored"]) == ("base_rate", 0, n_scored)
    assert np.isnan(card.metrics["brier_skill"])
    np.testing.assert_array_equal(model.predict(X), np.full(len(X), card.base_rate))


@pytest.mark.parametrize("result", [0, 1])
def test_one_class_gives_the_base_rate(result, tmp_path):
    X, y, known_at, resolved_at = world()
    model = trained((X, np.full(len(y), result), known_at, resolved_at))
    assert (model.card.speaks, model.predict(X.iloc[0])) == ("base_rate", float(result))
    model.save(tmp_path / "m.ubj")
    assert XGBoostPredictor.load(tmp_path / "m.ubj").predict(X.iloc[0]) == float(result)


def test_scores_that_fall_with_the_outcomes_never_speak():
    features, is_win, _, known_at, resolved_at = worlds.alternating(400, 1)
    model = XGBoostPredictor().train(features, is_win, known_at=known_at, resolved_at=resolved_at)
    assert model.card.speaks == "base_rate"
    assert list(model.card.features) == ["0", "1", "2"]


def test_the_card_says_what_it_was_trained_on():
    X, y, known_at, resolved_at = world()
    card = predictor().card
    weight = average_uniqueness(known_at, resolved_at, [""] * len(y))
    assert (card.n_rows, card.n_wins, card.seed, card.sha256) == (300, y.sum(), 3, None)
    assert card.effective_labels == pytest.approx(weight.sum())
    assert card.base_rate == pytest.approx(np.average(y, weights=weight))
    assert card.trained_through == resolved_at.max()
    assert list(card.features) == NAMES
    assert set(card.versions) >= {"qml-plugin", "xgboost", "numpy"}
    assert X.attrs == {}


def test_the_same_input_gives_the_same_bits_and_another_seed_others():
    X, y, known_at, resolved_at = world()
    again = trained(world())
    assert again.predict(X).tobytes() == predictor().predict(X).tobytes()
    other = XGBoostPredictor(seed=4).train(X, y, known_at=known_at, resolved_at=resolved_at)
    assert other.predict(X).tobytes() != predictor().predict(X).tobytes()


# Rows


def test_a_row_may_be_a_mapping_a_series_or_many():
    X = world()[0]
    together = predictor().predict(X)
    for place in range(20):
        row = X.iloc[place]
        shuffled = dict(sorted(row.items(), reverse=True))
        with_none = {name: None if np.isnan(value) else value for name, value in shuffled.items()}
        for given in (row, shuffled, with_none, X.iloc[[place]]):
            assert predictor().predict(given) == together[place]
        assert type(predictor().predict(row)) is float


@pytest.mark.parametrize("columns", [NAMES[::-1], [*NAMES[:6], "f7", "f6"]])
def test_columns_in_another_order_are_refused_before_a_score(columns):
    X = world()[0][columns]
    for row in (X, X.iloc[0]):
        with pytest.raises(FeatureMismatch, match=r"in another order: 'f7' where 'f[06]' belongs.*in its order"):
            predictor().predict(row)


def test_missing_and_unknown_features_are_named():
    X = world()[0]
    row = X.iloc[0].to_dict()
    del row["f3"]
    for given in (row, X.drop(columns="f3"), X.iloc[0].drop("f3")):
        with pytest.raises(FeatureMismatch, match="7 features where the model has 8; missing 'f3'"):
            predictor().predict(given)
    for given in ({**row, "f3": 1.0, "x": 1.0}, X.assign(x=1.0)):
        with pytest.raises(FeatureMismatch, match="9 features where the model has 8; unknown 'x'"):
            predictor().predict(given)
    with pytest.raises(FeatureMismatch, match="missing 'f0'; unknown 'F0'"):
        predictor().predict(X.rename(columns={"f0": "F0"}))


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.inf, "feature 'f2' of row 0 is infinite"), (1e39, "beyond float32"), ("high", "feature 'f2' is 'high'")],
)
def test_values_that_are_no_finite_number_are_refused(value, message):
    row = world()[0].iloc[0].to_dict() | {"f2": value}
    with pytest.raises(DataError, match=message):
        predictor().predict(row)
    with pytest.raises(DataError, match=r"infinite or beyond|no number"):
        predictor().predict(pd.DataFrame([row]))


def test_what_is_no_row_is_refused():
    with pytest.raises(DataError, match=r"row is a list. Pass a mapping or Series"):
        predictor().predict([1.0] * 8)


def test_before_training_there_is_nothing(tmp_path):
    for call in (lambda one: one.predict({}), lambda one: one.card, lambda one: one.save(tmp_path / "m.ubj")):
        with pytest.raises(NotFitted, match="has no model yet"):
            call(XGBoostPredictor())


# As of


def test_an_entry_before_the_last_outcome_is_refused():
    X = world()[0]
    row, at = X.iloc[0], predictor().card.trained_through
    for as_of in (
        at - 1,
        to_datetime(at - 1),
        to_datetime(at - 1).isoformat(),
        to_datetime(at - 1).replace(tzinfo=UTC),
    ):
        with pytest.raises(
            LookAheadError, match=r"an entry of .* was to be scored by a model that has seen outcomes known at"
        ):
            predictor().predict(row, as_of=as_of)
    for as_of in (at, at + 1, to_datetime(at), pd.Timestamp(at, unit="us", tz="UTC").tz_convert("America/New_York")):
        assert predictor().predict(row, as_of=as_of) == predictor().predict(row)


def test_one_early_entry_among_many_is_enough():
    X, at = world()[0].iloc[:3], predictor().card.trained_through
    late = pd.DatetimeIndex([to_datetime(at + n) for n in range(3)])
    assert len(predictor().predict(X, as_of=late)) == 3
    with pytest.raises(LookAheadError):
        predictor().predict(X, as_of=[at, at - 1, at + 5])


@pytest.mark.parametrize("as_of", ["yesterday-ish", pd.NaT, [datetime(2024, 1, 1), "x"]])
def test_a_moment_that_is_none_is_refused(as_of):
    with pytest.raises(DataError, match=r"as_of is .* It must be a"):
        predictor().predict(world()[0].iloc[0], as_of=as_of)


# What it is trained on


def test_without_the_intervals_of_the_labels_it_is_not_trained():
    X, y, known_at, resolved_at = world()
    for times in ({}, {"known_at": known_at}, {"resolved_at": resolved_at}, {"group": ["a"] * len(y)}):
        with pytest.raises(DataError, match="the interval of the labels is not known"):
            XGBoostPredictor().train(X, y, **times)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.ones(299)}, "X has 300 rows and y the shape"),
        ({"y": np.full(300, 2)}, r"y\[0\] is .*2.* A result is 1"),
        ({"y": np.full(300, np.nan)}, r"y\[0\] is .*nan"),
        ({"X": np.zeros((0, 3))}, r"X has the shape \(0, 3\)"),
        ({"X": np.zeros(300)}, r"X has the shape \(300,\)"),
        ({"X": np.full((300, 2), np.inf)}, "feature '0' of row 0 is infinite"),
        ({"X": pd.DataFrame(np.zeros((300, 2)), columns=["a", "a"])}, "two columns called 'a'"),
        ({"X": np.full((300, 2), "x")}, "a feature is no number"),
        ({"known_at": np.zeros(3)}, "X has 300 rows, known_at 3"),
        ({"known_at": np.full(300, 2**60)}, "resolves at .* before it is known"),
    ],
)
def test_what_does_not_belong_together_is_refused_and_the_old_model_stays(change, message):
    X, y, known_at, resolved_at = world()
    model = trained(world())
    given = {"X": X, "y": y, "known_at": known_at, "resolved_at": resolved_at} | change
    with pytest.raises(DataError, match=message):
        model.train(given.pop("X"), given.pop("y"), **given)
    assert model.predict(X).tobytes() == predictor().predict(X).tobytes()


def test_labels_of_different_groups_do_not_overlap():
    n = len(world()[1])
    apart = trained(world(), group=[str(place) for place in range(n)])
    assert apart.card.effective_labels == pytest.approx(n)
    assert predictor().card.effective_labels < 0.6 * n


def test_a_table_carries_its_rows_through_a_choice_of_them():
    from qml_plugin.records import TrainingRows

    X, y, known_at, resolved_at = world()
    ids = tuple(f"p{place}" for place in range(len(y)))
    rows = TrainingRows(
        ids, ("A",) * 300, ("1h",) * 300, ("S",) * 300, known_at, resolved_at, dict.fromkeys(NAMES, "v")
    )
    X = X.set_axis(pd.Index(ids))
    X.attrs.update(feature_set="e" * 64, rows=rows)
    whole = XGBoostPredictor(seed=3).train(X, y)
    assert whole.predict(X.iloc[5]) == predictor().predict(world()[0].iloc[5])
    assert (whole.card.feature_set, set(whole.card.features.values())) == ("e" * 64, {"v"})
    some = np.arange(0, 200)[::-1]
    part = XGBoostPredictor(seed=3).train(X.iloc[some], y[some])
    assert part.card.trained_through == resolved_at[:200].max()
    fewer = XGBoostPredictor(seed=3).train(X[NAMES[:4]], y)
    assert (fewer.card.feature_set, list(fewer.card.features)) == (None, NAMES[:4])
    with pytest.raises(DataError, match="X has a row 'q' that is not among the patterns"):
        XGBoostPredictor().train(X.rename(index={"p7": "q"}), y)
    other = X.copy()
    other.attrs["feature_set"] = "d" * 64
    with pytest.raises(FeatureMismatch, match=f"the row is of feature set {'d' * 64}"):
        whole.predict(other)


def test_a_predictor_goes_to_a_worker_process():
    back = pickle.loads(pickle.dumps(predictor()))  # noqa: S301
    X = world()[0]
    assert back.predict(X).tobytes() == predictor().predict(X).tobytes()
