"""Features of the user's own join the catalogue only when the future does not touch them."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest

from qml_plugin.errors import DataError, FeatureMismatch, LookAheadError
from qml_plugin.features import CATALOGUE, MarketFeatures, compute_features, user_feature
from qml_plugin.features.user import remove_user_feature
from qml_plugin.memory import PatternMemory

from .data import cut, make_bars

BARS = make_bars(600, 3)


@pytest.fixture(autouse=True)
def _built_in_only():
    yield
    for name in [feature.name for feature in CATALOGUE if feature.category == "user"]:
        remove_user_feature(name.removeprefix("user_"))


def body(bars):
    return ((bars.Close - bars.Open) / bars.Close).rolling(3).mean()


def test_it_joins_the_catalogue_and_every_table():
    n, old_set = len(CATALOGUE), CATALOGUE.feature_set
    assert user_feature("body_3", warmup=2, definition="mean body of 3", source="me 2026")(body) is body
    feature = CATALOGUE["user_body_3"]
    assert (feature.category, feature.window, feature.warmup, feature.source) == ("user", 3, 2, "me 2026")
    assert len(CATALOGUE) == n + 1
    assert CATALOGUE.feature_set != old_set
    table = compute_features(BARS)
    expected = ((BARS.close - BARS.open) / BARS.close)[-3:].mean()
    assert table["user_body_3"].iloc[-1] == pytest.approx(expected)
    assert table["user_body_3"].iloc[:2].isna().all()
    np.testing.assert_array_equal(MarketFeatures(BARS).rows([599, 7])[:, -1], table["user_body_3"].iloc[[599, 7]])
    remove_user_feature("body_3")
    assert CATALOGUE.feature_set == old_set


def test_its_version_is_that_of_its_code():
    def registered(function):
        user_feature("x", warmup=0, definition="x")(function)
        version = CATALOGUE["user_x"].version
        remove_user_feature("x")
        return version

    def one(bars):
        return bars.Close / bars.Open

    def same(bars):
        # a comment
        """A docstring."""
        return bars.Close / bars.Open

    def other(bars):
        return bars.Open / bars.Close

    assert registered(one) != registered(other)
    assert registered(one) == registered(one)
    assert registered(one) != registered(same), "the name belongs to the code"


LEAKS = {
    "centred window": lambda bars: bars.Close.rolling(5, center=True).mean(),
    "shift": lambda bars: bars.Close.shift(-1) / bars.Close,
    "backward fill": lambda bars: bars.Close.where(bars.Close > bars.Open).bfill(),
    "whole-sample mean": lambda bars: bars.Close / bars.Close.mean(),
    "whole-sample rank": lambda bars: bars.Volume.rank(),
    "last value": lambda bars: bars.Close / bars.Close.iloc[-1],
    "bars to the end": lambda bars: np.arange(len(bars), 0, -1.0),
    "time to the end": lambda bars: (bars.index[-1] - bars.index).total_seconds(),
    "gap to the next bar": lambda bars: bars.index.to_series().diff().shift(-1).dt.total_seconds(),
    "last day of the month": lambda bars: bars.index.day.to_series().groupby(bars.index.month).transform("max"),
    "volumes filled backwards": lambda bars: bars.Volume.bfill(),
    "still bars filled backwards": lambda bars: (bars.High - bars.Low).replace(0.0, np.nan).bfill(),
    "only at high prices": lambda bars: np.where(bars.Close > 1e4, bars.Close.iloc[-1], 0.0),
}


@pytest.mark.parametrize("function", LEAKS.values(), ids=LEAKS)
def test_a_look_ahead_is_refused_with_its_bar(function):
    with pytest.raises(LookAheadError, match=r"user_leak looks ahead: at bar \d+ it is .* when the bars from \d+ on"):
        user_feature("leak", warmup=10, definition="x")(function)
    assert "user_leak" not in CATALOGUE.names


def test_a_warmup_too_short_is_refused():
    with pytest.raises(DataError, match="user_slow depends on bars older than its warm-up of 20"):
        user_feature("slow", warmup=20, definition="x")(lambda bars: bars.Close.ewm(span=50).mean() / bars.Close)
    user_feature("slow", warmup=640, definition="x")(lambda bars: bars.Close.ewm(span=50).mean() / bars.Close)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda bars: bars.Close.iloc[1:], r"values of shape \(219,\) for 220 bars"),
        (lambda bars: bars.Close * np.inf, "user_bad is inf at the bar of 2021"),
    ],
)
def test_malformed_values_are_refused(function, message):
    with pytest.raises(DataError, match=message):
        user_feature("bad", warmup=10, definition="x")(function)


@pytest.mark.parametrize("name", ["", "With Space", "UPPER", "a-b", "naïve"])
def test_malformed_names_are_refused(name):
    with pytest.raises(DataError, match="Use lower case letters"):
        user_feature(name, warmup=1, definition="x")


def test_a_name_is_taken_once():
    user_feature("body_3", warmup=2, definition="x")(body)
    with pytest.raises(DataError, match="there is a feature user_body_3 already"):
        user_feature("body_3", warmup=2, definition="x")


def test_a_decorator_used_twice_is_refused_the_second_time():
    decorator = user_feature("twice", warmup=0, definition="x")
    decorator(lambda bars: bars.Close)
    with pytest.raises(DataError, match="there is a feature user_twice already"):
        decorator(lambda bars: bars.Open)
    assert CATALOGUE.names.count("user_twice") == 1


def test_values_belong_to_the_code_not_to_the_name():
    market = MarketFeatures(BARS)
    user_feature("x", warmup=0, definition="x")(lambda bars: bars.Close)
    first = market.rows([10])[0, -1]
    remove_user_feature("x")
    user_feature("x", warmup=0, definition="x")(lambda bars: -bars.Close)
    assert market.rows([10])[0, -1] == -first


@pytest.mark.parametrize(
    ("given", "message"), [({"warmup": 2.5}, "warmup of user_x is 2.5"), ({"window": 0}, "window")]
)
def test_malformed_lengths_are_refused(given, message):
    with pytest.raises(DataError, match=message):
        user_feature("x", **{"warmup": 0, "definition": "x", **given})


def test_what_has_no_code_is_refused_and_a_partial_is_known_by_its_arguments():
    def diff(k, bars):
        return bars.Close.diff(k)

    with pytest.raises(DataError, match="user_x cannot be registered: a int has no code"):
        user_feature("x", warmup=0, definition="x")(3)
    versions = set()
    for k in (1, 2):
        user_feature("x", warmup=2, definition="x")(functools.partial(diff, k))
        versions.add(CATALOGUE["user_x"].version)
        remove_user_feature("x")
    assert len(versions) == 2


def test_an_error_of_the_function_leaves_the_catalogue_alone():
    def broken(bars):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        user_feature("broken", warmup=2, definition="x")(broken)
    assert "user_broken" not in CATALOGUE.names


def test_the_users_frame_may_be_scribbled_on():
    def scribble(bars):
        bars["Close"] = 0.0
        return bars.Open

    market = MarketFeatures(BARS)
    before = market.rows([500])
    user_feature("scribble", warmup=0, definition="x")(scribble)
    np.testing.assert_array_equal(market.rows([500])[:, :-1], before)


def test_a_run_keeps_the_features_it_began_with():
    memory = PatternMemory(cut(BARS, 0, 500))
    entry = memory.entry(450, 1)
    user_feature("body_3", warmup=2, definition="x")(body)
    with pytest.raises(FeatureMismatch, match="added or removed during the run"):
        memory.decide(entry)


def test_entry_points_are_loaded_and_a_broken_one_is_named(tmp_path):
    (tmp_path / "my_features.py").write_text(
        "from qml_plugin.features import user_feature\n"
        "@user_feature('body_3', warmup=0, definition='body')\n"
        "def body(bars):\n    return bars.Close - bars.Open\n"
    )
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[qml_plugin.features]\ngood = my_features\nbad = no_such_module\n")
    code = "from qml_plugin.features import CATALOGUE; print(CATALOGUE[-1].name)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
        env={"PYTHONPATH": f"{tmp_path}:.", "PATH": ""},
    )  # fmt: skip
    assert done.stdout.strip() == "user_body_3", done.stderr
    assert "features of the entry point 'bad' (no_such_module) are left out" in done.stderr
