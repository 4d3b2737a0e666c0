import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit

from qml_plugin.errors import DataError, FeatureMismatch, MissingExtra
from qml_plugin.gate import fit_confidence
from qml_plugin.gate.rungs import Logistic, _prior_variance
from tests.gate import worlds


@pytest.fixture(scope="module")
def strong():
    return worlds.linear(400, 1, strength=1.0)


@pytest.fixture(scope="module")
def models(strong):
    return {name: fit_confidence(*strong, seed=3, model=name) for name in ("logistic", "xgboost")}


def test_a_planted_signal_leaves_the_base_rate(strong):
    model = fit_confidence(*strong, seed=3)
    assert model.name in ("logistic", "xgboost")
    assert model.slope > 0
    features, is_win, *_ = worlds.linear(2000, 2, strength=1.0)
    confidence = model.predict(features)
    assert confidence.dtype == np.float64
    assert ((confidence > 0) & (confidence < 1)).all()
    assert np.mean((confidence - is_win) ** 2) < 0.9 * np.mean((model.base_rate - is_win) ** 2)


def test_the_confidence_is_calibrated():
    # Over twelve seeds the error of a bin has mean 0.01 and standard deviation 0.034.
    model = fit_confidence(*worlds.linear(800, 0, strength=1.0), seed=3)
    features, is_win, *_ = worlds.linear(4000, 2, strength=1.0)
    confidence = model.predict(features)
    for low, high in ((0.1, 0.4), (0.4, 0.6), (0.6, 0.9)):
        inside = (confidence >= low) & (confidence < high)
        assert abs(confidence[inside].mean() - is_win[inside].mean()) < 0.1


def test_trees_speak_where_a_line_cannot():
    model = fit_confidence(*worlds.interaction(500, 1), seed=3)
    assert model.name == "xgboost"


@pytest.mark.parametrize("model", ["auto", "logistic", "xgboost"])
def test_scores_that_fall_with_the_outcomes_never_speak(model):
    fitted = fit_confidence(*worlds.alternating(400, 1), seed=3, model=model)
    assert fitted.name == "base_rate"


def test_without_a_signal_the_base_rate_mostly_speaks():
    names = [fit_confidence(*worlds.linear(300, seed, strength=0.0), seed=1).name for seed in range(10)]
    assert names.count("base_rate") >= 6


@pytest.mark.parametrize("n_entries", [1, 3, 12, 40])
def test_few_entries_give_the_base_rate(n_entries):
    features, is_win, weight, known_at, resolved_at = worlds.linear(n_entries, 1, strength=1.0)
    model = fit_confidence(features, is_win, weight, known_at, resolved_at, seed=3)
    assert model.name == "base_rate"
    assert model.base_rate == pytest.approx((weight * is_win).sum() / weight.sum())
    np.testing.assert_allclose(model.predict(features), np.full(n_entries, model.base_rate), atol=2e-6)
    assert np.isfinite(model.contributions(features[0])).all()


@pytest.mark.parametrize("is_win", [True, False])
def test_one_class_gives_the_base_rate(is_win):
    features, _, weight, known_at, resolved_at = worlds.linear(200, 1, strength=1.0)
    model = fit_confidence(features, np.full(200, is_win), weight, known_at, resolved_at, seed=3)
    assert (model.name, model.base_rate) == ("base_rate", float(is_win))


def test_labels_that_stay_open_leave_nothing_to_check():
    features, is_win, weight, known_at, _ = worlds.linear(300, 1, strength=1.0)
    model = fit_confidence(features, is_win, weight, known_at, known_at + 10_000 * worlds.HOUR, seed=3)
    assert model.name == "base_rate"


def test_constant_and_absent_features_do_no_harm(strong):
    features, *rest = strong
    wider = np.column_stack([features, np.full(400, 7), np.full(400, np.nan)]).astype(np.float32)
    for name in ("logistic", "xgboost"):
        model = fit_confidence(wider, *rest, seed=3, model=name)
        assert model.name == name
        assert np.isfinite(model.predict(wider)).all()
        np.testing.assert_array_equal(model.contributions(wider[0])[-2:], [0.0, 0.0])


def test_the_order_of_the_rows_matters_only_in_rounding(strong):
    shuffled = np.random.default_rng(0).permutation(400)
    one = fit_confidence(*strong, seed=3, model="logistic")
    two = fit_confidence(*(column[shuffled] for column in strong), seed=3, model="logistic")
    np.testing.assert_allclose(one.predict(strong[0]), two.predict(strong[0]), atol=1e-4)


@pytest.mark.parametrize("name", ["logistic", "xgboost"])
def test_a_row_is_scored_by_itself(models, strong, name):
    features = strong[0]
    together = models[name].predict(features)
    alone = np.concatenate([models[name].predict(row[None]) for row in features[:50]])
    np.testing.assert_array_equal(together[:50], alone)


@pytest.mark.parametrize("name", ["logistic", "xgboost"])
def test_contributions_add_up_to_the_margin(models, strong, name):
    model = models[name]
    rows = strong[0][:20]
    margin = (logit(model.predict(rows)) - logit(model.base_rate)) / model.slope
    total = np.array([model.contributions(row).sum() for row in rows])
    np.testing.assert_allclose(margin - margin[0], total - total[0], atol=1e-4)


def test_contributions_name_the_features_that_tell(models, strong):
    for name in ("logistic", "xgboost"):
        mean_size = np.abs(models[name].contributions(strong[0][:100])).mean(axis=0)
        assert mean_size[:3].min() > mean_size[3:].max()


def test_the_base_rate_weighs_no_feature(strong):
    features, is_win, *rest = strong
    model = fit_confidence(features[:8], is_win[:8], *(column[:8] for column in rest), seed=3)
    assert model.name == "base_rate"
    np.testing.assert_array_equal(model.contributions(features[:3]), np.zeros((3, 8)))


def test_the_logistic_slopes_are_the_mode_under_the_learnt_priors():
    # At the minimum of the penalised likelihood the gradient of the loss equals minus slope over prior variance.
    features, is_win, weight, *_ = worlds.linear(300, 4, strength=0.7)
    fitted = Logistic.fit(features, is_win, weight, 1)
    inputs = fitted.scaler.transform(features).astype(float) - fitted.centre
    variance = _prior_variance(inputs, is_win, weight)
    intercept = brentq(lambda level: (weight * (expit(level + inputs @ fitted.slopes) - is_win)).sum(), -5, 5)
    gradient = inputs.T @ (weight * (expit(intercept + inputs @ fitted.slopes) - is_win))
    used = variance > 1e-6
    assert used[:3].all()
    np.testing.assert_allclose(gradient[used], -fitted.slopes[used] / variance[used], atol=1e-6)
    assert not fitted.slopes[~used].any()


def test_the_learnt_priors_tell_what_informs_from_what_does_not():
    features, is_win, weight, *_ = worlds.linear(800, 4, strength=0.7, n_features=100)
    slopes = np.abs(Logistic.fit(features, is_win, weight, 1).slopes)
    assert slopes[:3].min() > 5 * slopes[3:].max()
    coins = [np.random.default_rng(seed).random(800) < 0.43 for seed in range(12)]
    spread = [Logistic.fit(features, is_win, weight, 1).score(features).std() for is_win in coins]
    assert np.median(spread) < 0.15, "a fixed penalty of the same strength in all gives 0.5"


def test_duplicates_of_a_feature_share_its_slope():
    features, is_win, weight, *_ = worlds.linear(500, 4, strength=0.7, missing=0)
    once = Logistic.fit(features, is_win, weight, 1).score(features)
    thrice = Logistic.fit(np.column_stack([features] * 3), is_win, weight, 1).score(np.column_stack([features] * 3))
    assert np.corrcoef(once, thrice)[0, 1] > 0.99


def test_the_interval_holds_the_confidence_and_narrows_with_the_past():
    widths = []
    for n_entries in (150, 600, 2400):
        model = fit_confidence(*worlds.linear(n_entries, 1, strength=0.5), seed=3, model="logistic")
        confidence, low, high = model.predict_interval(worlds.linear(500, 2, strength=0.5)[0])
        assert ((low <= confidence) & (confidence <= high) & (low > 0) & (high < 1)).all()
        widths.append(np.median(high - low))
    assert widths[0] > widths[1] > widths[2]


def test_the_interval_covers_the_share_of_wins_of_its_score():
    covered = []
    for seed in range(30):
        model = fit_confidence(*worlds.linear(400, seed, strength=0.0), seed=3)
        _, low, high = model.predict_interval(np.zeros((1, 8), np.float32))
        covered.append(low[0] <= 1 / (1 + np.exp(0.2)) <= high[0])
    assert np.mean(covered) >= 0.75


def test_the_base_rate_of_now_moves_the_confidence(models, strong):
    for model in models.values():
        rows = strong[0][:20]
        moved = logit(model.predict(rows, 0.3)) - logit(model.predict(rows))
        np.testing.assert_allclose(moved, logit(0.3) - logit(model.base_rate), atol=1e-6)


def test_venn_abers_calibrates_where_the_past_is_rich_and_it_wins():
    features, is_win, _, known_at, resolved_at = worlds.steps(3000, 1)
    model = fit_confidence(features, is_win, np.ones(3000), known_at, resolved_at, seed=3, model="logistic")
    assert model.calibration == "venn_abers"
    fresh = worlds.steps(4000, 2)
    confidence, low, high = model.predict_interval(fresh[0])
    assert ((low <= confidence) & (confidence <= high)).all()
    for is_upper, share in ((True, 0.8), (False, 0.3)):
        assert abs(confidence[(fresh[0][:, 0] > 0) == is_upper].mean() - share) < 0.05
    poor = fit_confidence(features, is_win, np.full(3000, 0.2), known_at, resolved_at, seed=3, model="logistic")
    assert poor.calibration == "sigmoid", "the same rows are worth 600 effective ones"


def test_another_width_is_refused(models):
    for model in models.values():
        with pytest.raises(FeatureMismatch, match=r"shape \(1, 7\) refused: the model was fitted on 8"):
            model.predict(np.zeros((1, 7), np.float32))
        with pytest.raises(FeatureMismatch, match=r"shape \(1, 9\) refused"):
            model.contributions(np.zeros(9, np.float32))


def test_infinite_features_are_refused(models, strong):
    row = np.zeros((1, 8), np.float32)
    row[0, 2] = np.inf
    with pytest.raises(DataError, match="feature 2 of row 0 is inf"):
        models["logistic"].predict(row)
    with pytest.raises(DataError, match="feature 2 of row 0 is inf"):
        fit_confidence(row, *(column[:1] for column in strong[1:]), seed=1)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, np.empty((0, 8), np.float32), r"features of shape \(0, 8\), 10 outcomes"),
        (0, np.empty((10, 0), np.float32), r"features of shape \(10, 0\)"),
        (1, np.ones(9, bool), "9 outcomes"),
        (2, np.zeros(10), "weight 0 is 0.0"),
        (4, np.full(10, -1), "event 0 resolves before it is known"),
    ],
)
def test_columns_that_do_not_fit_are_refused(strong, column, value, message):
    columns = [each[:10] for each in strong]
    columns[column] = value
    with pytest.raises(DataError, match=message):
        fit_confidence(*columns, seed=1)


def test_an_unknown_model_is_refused(strong):
    with pytest.raises(DataError, match="model 'forest' is unknown"):
        fit_confidence(*strong, seed=1, model="forest")


def test_without_xgboost_the_message_says_how_to_install_it(strong, monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(MissingExtra, match=r"pip install 'qml-plugin\[xgboost\]'"):
        fit_confidence(*strong, seed=1)


FINGERPRINT = """
from tests.gate.test_confidence import fingerprint
print(fingerprint())
"""


def fingerprint():
    """Every bit of what two models say about two worlds."""
    digest = hashlib.sha256()
    for world in (worlds.linear(250, 5, strength=0.8, n_features=60), worlds.interaction(250, 5)):
        for name in ("logistic", "xgboost"):
            model = fit_confidence(*world, seed=11, model=name)
            digest.update(np.array([model.base_rate, model.slope]).tobytes())
            digest.update(model.predict(world[0]).tobytes())
            digest.update(model.contributions(world[0][0]).tobytes())
    return digest.hexdigest()


def test_same_bits_whatever_the_number_of_threads():
    seen = set()
    for n_threads in ("1", "4"):
        environment = os.environ | {"OMP_NUM_THREADS": n_threads, "OPENBLAS_NUM_THREADS": n_threads}
        command = [sys.executable, "-W", "error", "-c", FINGERPRINT]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        seen.add(done.stdout.strip())
    assert seen == {fingerprint()}
