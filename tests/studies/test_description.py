"""What a study file may say, and that everything else is refused with its place before anything runs."""

import re
import warnings
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin.errors import DataError
from qml_plugin.records import BarrierRule
from qml_plugin.studies.description import HOST, TOP, VALIDATION, read_description
from tests.conftest import random_walk

ROOT = Path(__file__).parents[2]
GOOD = {
    "strategies": [{"strategy": "MovingAverageCross", "grid": {"fast": [5, 10], "slow": "30:50:10"}}],
    "markets": [{"symbol": "GOOG"}],
}


def written(folder, value) -> Path:
    file = folder / "my.yaml"
    file.write_text(value if isinstance(value, str) else yaml.safe_dump(value, sort_keys=False))
    return file


def changed(*path, to):
    """The good study with one value changed or added; ``to=None`` at a key takes it away."""
    study = yaml.safe_load(yaml.safe_dump(GOOD))
    place = study
    for key in path[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
    place[path[-1]] = to
    return study


def test_a_study_says_as_little_as_it_can(tmp_path):
    study = read_description(written(tmp_path, GOOD))
    (entry,) = study.strategies
    (market,) = study.markets
    assert (study.name, entry.name, entry.cls.__name__) == ("my", "MovingAverageCross", "MovingAverageCross")
    assert entry.grid == {"fast": (5, 10), "slow": (30, 40, 50)}
    assert (market.symbol, market.timeframe, market.file, market.last_bars) == ("GOOG", "1d", None, None)
    assert study.host == {"commission": 0.0005, "finalize_trades": True}
    assert (study.gate, study.gate_grid) == ({"mode": "record"}, {})
    assert (study.fees, study.is_quick, study.false_discovery_rate, study.seed) == (0.0005, False, 0.05, 0)


def test_a_study_says_much(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_BARS", str(tmp_path / "bars"))
    (tmp_path / "bars").mkdir()
    for name in ("A_1h", "A_4h", "B_1h", "B_4h"):
        (tmp_path / "bars" / f"{name}.csv").touch()
    (tmp_path / "mine.toml").write_text("[timing]\nalpha = 0.01\n")
    (tmp_path / "own.py").write_text(
        "from strategies.donchian import DonchianBreakout\n\n\nclass Mine(DonchianBreakout):\n    pass\n"
    )
    study = read_description(
        written(
            tmp_path,
            """
name: much
description: All keys.
strategies:
  - strategy: own.py:Mine
    name: mine
    grid: {entry_bars: [10, 20], stop_loss_atr: [null, 1e0]}
    fixed: {exit_bars: 5}
  - strategy: strategies.rsi_reversion:RSIReversion
    grid: {oversold: [25.0, 30.0]}
markets:
  - symbol: [A, B]
    timeframe: [60m, 4h]
    file: ${SOME_BARS}/{symbol}_{timeframe}.csv
    last_bars: 500
host: {cash: 1e6, commission: 0.001, margin: 0.5, exclusive_orders: true}
gate:
  mode: [record, gate]
  barriers: {stop_atr: 1, target_atr: 2, max_bars: 20}
objective: sqn
validation: {quick: true, windows: 4, draws: 99, paths: 500, permutations: 5, thresholds: mine.toml, false_discovery_rate: 0.1}
seed: 3
""".replace("60m", "1h"),
        )
    )
    assert [(m.symbol, m.timeframe, m.file.name) for m in study.markets] == [
        ("A", "1h", "A_1h.csv"), ("A", "4h", "A_4h.csv"), ("B", "1h", "B_1h.csv"), ("B", "4h", "B_4h.csv"),
    ]  # fmt: skip
    assert len(study.cells()) == 8
    assert study.strategies[0].grid["stop_loss_atr"] == (None, 1.0)
    assert study.strategies[0].fixed == {"exit_bars": 5}
    assert study.gate == {"barriers": BarrierRule(1, 2, 20)}
    assert study.gate_grid == {"mode": ("record", "gate")}
    assert study.host["cash"] == 1e6
    assert study.fees == 0.001  # the commission, unless it is given
    assert (study.plan.n_windows, study.plan.n_draws, study.plan.n_paths, study.plan.n_permutations) == (4, 99, 500, 5)
    assert study.thresholds.timing_alpha == 0.01


S, M = "strategies", "markets"


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (changed("strategis", to=1), r"my\.yaml: the file has an unknown key 'strategis'\. Known keys are .*Did you mean 'strategies'\?"),
        ({"strategies": GOOD[S]}, r"my\.yaml: markets is missing"),
        ([], r"the file is \[\]\. It must be a mapping, not a list"),
        (changed("name", to="a/b"), r"name is 'a/b'\. It names a folder"),
        (changed("name", to=7), "name is 7. It must be text"),
        (changed(S, to=[]), r"strategies is \[\]\. It must be a list with at least one"),
        (changed(S, 0, to="MovingAverageCross"), r"strategies\[0\] is 'MovingAverageCross'. It must be a mapping, not text"),
        (changed(S, 0, "strategy", to="MovingAvrageCross"), r"strategies\[0\]\.strategy is .*Did you mean 'MovingAverageCross'\?"),
        (changed(S, 0, "strategy", to="none.py:X"), r"strategies\[0\]\.strategy is 'none.py:X'\. there is no file"),
        (changed(S, 0, "strategy", to="strategies.qml:Nil"), r"strategies\[0\]\.strategy .*it has QMLStrategy"),
        (changed(S, 0, "strategy", to="pathlib:Path"), r"strategies\[0\]\.strategy .*is no backtesting.Strategy"),
        (changed(S, 0, "grid", to={}), r"strategies\[0\]\.grid is {}\. It must name at least one parameter"),
        (changed(S, 0, "grid", "fats", to=[1]), r"strategies\[0\]\.grid has an unknown key 'fats'\..*it has atr_period, fast.*Did you mean 'fast'\?"),
        (changed(S, 0, "grid", "mode", to=["gate"]), r"strategies\[0\]\.grid has an unknown key 'mode'\. It is a setting of the memory"),
        (changed(S, 0, "grid", "fast", to=[]), r"strategies\[0\]\.grid\.fast is \[\]\. It must be a list with at least one"),
        (changed(S, 0, "grid", "fast", to=5), r"strategies\[0\]\.grid\.fast is 5\. It must be a list of values"),
        (changed(S, 0, "grid", "fast", to=[5, 5]), r"grid\.fast is \[5, 5\]\. A value comes twice"),
        (changed(S, 0, "grid", "fast", to=[[5]]), r"strategies\[0\]\.grid\.fast\[0\] is \[5\]\. It must be a single value"),
        (changed(S, 0, "grid", "fast", to="9:5:1"), r"grid\.fast is '9:5:1'\. A range is low:high:step"),
        (changed(S, 0, "grid", "fast", to="1:3000:1"), r"the grid of MovingAverageCross has 9000 points, and 2000 at most"),
        (changed(S, 0, "fixed", to={"fast": 3}), r"strategies\[0\]\.fixed\.fast is 3\. fast is searched by the grid too"),
        (changed(S, to=GOOD[S] * 2), r"strategies\[1\] is called 'MovingAverageCross' like another one"),
        (changed(M, 0, "symbol", to="GOOGL"), r"markets\[0\]\.symbol is 'GOOGL'\. Only EURUSD, GOOG come along.*Did you mean 'GOOG'\?"),
        (changed(M, 0, "timeframe", to="4h"), r"markets\[0\]\.timeframe is '4h'\. The bundled GOOG has bars of 1d"),
        (changed(M, 0, "timeframe", to="4x"), r"markets\[0\]\.timeframe is '4x'\. Write a count and a unit"),
        (changed(M, 0, "file", to="no.csv"), r"markets\[0\]\.timeframe is missing"),
        (changed(M, 0, "last_bars", to=3), r"markets\[0\]\.last_bars is 3\. It must be a whole number from 100"),
        (changed(M, 0, to={"symbol": "X", "timeframe": "1h", "file": "no.csv"}), r"markets\[0\]\.file is 'no.csv'\. There is no file .*no\.csv"),
        (changed(M, 0, to={"symbol": "X", "timeframe": "1h", "file": "my.yaml"}), r"markets\[0\]\.file is .*neither \.csv nor \.parquet"),
        (changed(M, 0, to={"symbol": "X", "timeframe": "1h", "file": "${NO_SUCH_PLACE}/x.csv"}), r"markets\[0\]\.file is .*The variable NO_SUCH_PLACE is not set"),
        (changed(M, to=[{"symbol": ["GOOG", "GOOG"]}]), r"markets\[0\]: GOOG 1d comes twice"),
        (changed("host", to={"comission": 0.1}), r"host has an unknown key 'comission'\..*Did you mean 'commission'\?"),
        (changed("host", to={"commission": -1}), r"host\.commission is -1\. It must be a number from 0 to 0\.5"),
        (changed("host", to={"cash": 0}), r"host\.cash is 0\. It must be more than 0"),
        (changed("host", to={"exclusive_orders": "yes"}), r"host\.exclusive_orders is 'yes'\. It must be true or false"),
        (changed("gate", to={"mode": "gates"}), r"gate\.mode is 'gates'\. mode 'gates' is unknown"),
        (changed("gate", to={"mode": ["record", "gates"]}), r"gate\.mode\[1\] is 'gates'"),
        (changed("gate", to={"n_neighbours": "many"}), r"gate\.n_neighbours is 'many'"),
        (changed("gate", to={"barriers": {"stop": 1}}), r"gate\.barriers has an unknown key 'stop'"),
        (changed("gate", to={"registry": "x"}), r"gate has an unknown key 'registry'"),
        (changed("objective", to="sharpe_anual"), r"objective is 'sharpe_anual'\. Use one of .*Did you mean"),
        (changed("validation", to={"draws": 5}), r"validation\.draws is 5\. It must be a whole number from 19"),
        (changed("validation", to={"quick": 1}), r"validation\.quick is 1\. It must be true or false"),
        (changed("validation", to={"thresholds": "no.toml"}), r"validation\.thresholds is 'no\.toml'\. There is no file"),
        (changed("validation", to={"false_discovery_rate": 0}), r"false_discovery_rate is 0\. It must be more than 0"),
        (changed("seed", to=-1), r"seed is -1\. It must be a whole number"),
        ("a: 1\na: 2\n", r"my\.yaml is no YAML: .*the key 'a' comes twice"),
        ("a: [", r"my\.yaml is no YAML: (?!.*byte string).*at line 1, column 5"),
        ("1: 2", r"the file has the key 1\. Keys are text"),
        ("a: !!python/object/apply:os.getcwd []", "is no YAML: could not determine a constructor"),
        ("[" * 1_500, "is no YAML"),
        ("a: &x [*x]", r"the file has an unknown key 'a'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_place(tmp_path, study, message):
    with pytest.raises(DataError, match=message):
        read_description(written(tmp_path, study))


def test_a_file_that_is_not_there_says_how_to_make_one(tmp_path):
    with pytest.raises(DataError, match=r"quick cannot be read: .* `qml study new quick` writes one"):
        read_description(tmp_path / "quick")


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5000) | st.floats() | st.text(max_size=8) | st.dates()
    | st.sampled_from(["GOOG", "MovingAverageCross", "1h", "1:3:1", "${X:-y}", "{symbol}.csv"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*TOP, *HOST, *VALIDATION, "strategy", "grid", "symbol", "fast", "mode"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
_paths = st.sampled_from([
    (), ("name",), (S,), (S, 0), (S, 0, "strategy"), (S, 0, "grid"), (S, 0, "grid", "fast"), (S, 0, "fixed"), (M,), (M, 0),
    (M, 0, "symbol"), (M, 0, "timeframe"), (M, 0, "file"), ("host",), ("host", "cash"), ("gate",), ("gate", "mode"),
    ("gate", "barriers"), ("objective",), ("validation",), ("validation", "thresholds"), ("seed",),
])  # fmt: skip


@settings(max_examples=80)
@given(path=_paths, value=_values)
def test_whatever_stands_in_a_study_is_understood_or_refused(tmp_path_factory, path, value):
    folder = tmp_path_factory.getbasetemp()
    study = changed(*path, to=value) if path else value
    said = "my.yaml"
    try:
        read_description(written(folder, study))
    except DataError as error:
        said = str(error)
    assert "my.yaml" in said


@settings(max_examples=40)
@given(text=st.text(max_size=80))
def test_any_text_is_refused_or_a_study(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=re.escape("any.yaml")):
        read_description(file)


def test_the_template_and_the_shipped_studies_are_understood(tmp_path, monkeypatch):
    template = ROOT / "qml_plugin" / "studies" / "template.yaml"
    assert read_description(template).name == "first"
    assert len(read_description(ROOT / "experiments" / "quick.yaml").cells()) == 8
    monkeypatch.setenv("QML_DATA", str(tmp_path))
    with warnings.catch_warnings():
        for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
            for timeframe in ("1h", "4h"):
                random_walk(3, 0, freq=timeframe).to_parquet(tmp_path / f"crypto_{symbol}_{timeframe}.parquet")
    study = read_description(ROOT / "experiments" / "crypto.yaml")
    assert {market.file.parent for market in study.markets} == {tmp_path}
    monkeypatch.delenv("QML_DATA")
    with pytest.raises(DataError, match=r"crypto\.yaml: markets\[0\]\.file is .* is not set|There is no file"):
        read_description(ROOT / "experiments" / "crypto.yaml")
