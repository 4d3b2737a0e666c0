"""The page of the statistics runs, and names what there is."""

import re
from pathlib import Path

import pytest

from qml_plugin import stats

PAGE = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text()


def test_the_example_runs(capsys):
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
    exec(compile(block, "statistics.md", "exec"), {"__name__": "page"})
    assert re.match(r"(PASS|FAIL) \d\.\d+ p = ", capsys.readouterr().out)


def test_every_function_that_answers_a_question_is_named():
    scores = {
        "average_precision", "brier_score", "brier_skill", "calibration_error", "calibration_error_interval", "fit_sigmoid",
        "lift_curve", "log_loss", "purged_walk_forward", "reliability", "sigmoid", "sigmoid_covariance",
        "sharpe_moments", "sharpe_ratio", "automatic_block_length",
    }  # fmt: skip
    named = set(re.findall(r"`(\w+)", PAGE))
    functions = {name for name in stats.__all__ if name[0].islower()}
    assert functions - scores <= named
    assert scores <= functions


def test_all_names_are_there_whether_loaded_at_once_or_on_first_use():
    for name in stats.__all__:
        assert getattr(stats, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'; its names are in __all__"):
        stats.nothing  # noqa: B018
