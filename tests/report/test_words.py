import math

import pytest

from qml_plugin.report import words
from tests.report.samples import card


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234.50"), (-0.2, "\u22120.20"), (0.0, "0.00"), (-0.001, "0.00"), (3, "3.00")]
)
def test_numbers(value, text):
    assert words.number(value) == text


def test_signed_numbers_and_percents():
    assert words.number(1.5, signed=True) == "+1.50"
    assert words.number(0.0, signed=True) == "0.00"
    assert words.percent(-0.0345, signed=True) == "\u22123.5\u202f%"


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_missing_is_an_en_dash_with_a_title(value):
    for text in (words.number(value), words.percent(value)):
        assert "\u2013" in text
        assert "title=" in text


def test_reasons():
    assert words.reason("no_skill: Brier skill -0.012") == "no skill shown: Brier skill \u22120.012"
    assert words.reason("confident: 0.6 >= 0.5") == "confident enough: 0.6 \u2265 0.5"
    assert words.reason("a_new_one: 3") == "a new one: 3"
    assert words.reason(None) == ""


def test_confidence_beside_its_threshold():
    assert "31.2\u202f%, below the threshold of 40.5\u202f%" in words.confidence(card())
    assert "at or above" in words.confidence(card(confidence=0.405))
    assert "no threshold" in words.confidence(card(threshold=math.nan))
    assert "no confidence" in words.confidence(card(confidence=None))


def test_which_model_spoke():
    assert words.speaker(card()).startswith("The confidence came from XGBoost.")
    assert "logistic regression. The bars explain that model" in words.speaker(card(model="logistic"))
    assert words.speaker(card(model="base_rate", contributions=())).endswith(
        "from the base rate of past wins, which weighs no feature."
    )
    assert words.speaker(card(model=None, contributions=())) == "No model gave a confidence for this entry."


def test_outcomes():
    assert words.outcome(card()) == "Outcome: stop hit, a loss of \u22121.00 R."
    assert words.outcome(card(exit_reason="target", r_multiple=2.0)) == "Outcome: target reached, a win of +2.00 R."
    assert words.outcome(card(exit_reason="time", r_multiple=None)) == "Outcome: time limit reached."
    assert "still open" in words.outcome(card(exit_reason=None))
