import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from qml_plugin.errors import DataError
from qml_plugin.stats import VennAbers


def isotonic(scores, is_win, weight, score, outcome):
    """What isotonic regression says at a score if one more event there has this outcome."""
    columns = np.append(scores, score), np.append(is_win, outcome), np.append(weight, np.mean(weight))
    return IsotonicRegression().fit(*columns[:2], sample_weight=columns[2]).predict([score])[0]


@settings(max_examples=60, deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(-5, 5), st.booleans(), st.floats(0.1, 1.0)), min_size=1, max_size=30),
    score=st.sampled_from([-9.0, -3.0, -0.5, 0.0, 2.0, 2.5, 9.0]),
)
def test_both_probabilities_are_those_of_isotonic_regression(events, score):
    scores, is_win, weight = (np.array(column) for column in zip(*events, strict=True))
    confidence, low, high = VennAbers.fit(scores.astype(float), is_win, weight).predict(np.array([score]))
    assert low[0] == pytest.approx(isotonic(scores, is_win, weight, score, 0))
    assert high[0] == pytest.approx(isotonic(scores, is_win, weight, score, 1))
    assert low[0] <= confidence[0] <= high[0]


def test_many_scores_are_fused_and_stay_calibrated():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=4000)
    truth = np.where(scores > 0, 0.7, 0.2)
    fitted = VennAbers.fit(scores, rng.random(4000) < truth, np.ones(4000))
    assert len(fitted.edges) <= 128
    confidence, low, high = fitted.predict(scores)
    assert np.abs(confidence - truth).mean() < 0.05
    assert (high - low).mean() < 0.05
    assert (np.diff(confidence[np.argsort(scores)]) >= -1e-12).all()


@pytest.mark.parametrize(
    ("scores", "weight", "message"),
    [
        ([], [], "got 0 scores"),
        ([1.0], [1.0, 2.0], "2 weights"),
        ([np.nan], [1.0], "not finite"),
        ([1.0], [0.0], "not positive"),
    ],
)
def test_events_that_cannot_be_used_are_refused(scores, weight, message):
    with pytest.raises(DataError, match=message):
        VennAbers.fit(np.array(scores), np.ones(len(scores), bool), np.array(weight))
