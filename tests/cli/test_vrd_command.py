import json

import pandas as pd
import pytest

from tests.conftest import random_walk


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bars")
    for name, seed in (("a", 1), ("b", 2)):
        random_walk(400, seed, freq="D").to_csv(folder / f"{name}.csv", index_label="time")
    return folder


def test_several_markets_have_their_dossiers_and_a_required_verdict_sets_the_exit_code(qml, files, tmp_path):
    code, out, err = qml(
        "vrd", "MovingAverageCross", "--quick", "--grid", "fast=5,10", "--grid", "slow=20", "-s", "BTC/USDT", "--data",
        files / "a.csv", "-s", "B", "--data", files / "b.csv", "-t", "1d", "--out", tmp_path, "--db", f"sqlite:///{tmp_path}/r.db",
        "--require", "DEPLOY",
    )  # fmt: skip
    assert code == 1, err
    assert out.count("attempt 2 of MovingAverageCross") == 2
    assert out.count("recorded runs of any strategy on them: ") == 2
    for name in ("BTC-USDT", "B"):
        numbers = json.loads((tmp_path / f"MovingAverageCross_{name}_1d" / "dossier.json").read_text())
        assert numbers["validation"]["verdict"]["word"] in out
        assert (tmp_path / f"MovingAverageCross_{name}_1d" / "dossier.html").exists()


def test_where_every_trial_fails_the_error_is_said_once_with_exit_code_1(qml, files, tmp_path):
    (tmp_path / "own.py").write_text(
        "from backtesting import Strategy\n\n\nclass Fails(Strategy):\n    n = 5\n\n    def init(self):\n"
        "        raise ValueError('not today')\n\n    def next(self):\n        pass\n"
    )
    arguments = ("vrd", f"{tmp_path / 'own.py'}:Fails", "--quick", "-s", "A", "-t", "1d", "--data", files / "a.csv", "--out", tmp_path / "out", "--db", f"sqlite:///{tmp_path}/r.db")  # fmt: skip
    code, _, err = qml(*arguments, "--grid", "n=abc")
    assert code == 2
    assert "parameter 'n' of Fails is a number, 5 by default; 'abc' was given" in err
    assert not (tmp_path / "r.db").exists()
    code, out, err = qml(*arguments, "--grid", "n=3,4")
    assert code == 1, err
    assert out.count("not today") == 1
    assert "attempt" not in out


def test_returns_from_anywhere(qml, tmp_path):
    rows = {"ExitTime": pd.date_range("2020-01-01", periods=40, freq="W"), "ReturnPct": [0.01, -0.008] * 20}
    pd.DataFrame(rows).to_csv(tmp_path / "broker.csv", index=False)
    code, out, _ = qml("vrd", "--trades", tmp_path / "broker.csv", "--quick", "--out", tmp_path / "out")
    assert code == 0
    assert out.startswith("INSUFFICIENT  broker\n")
    assert (tmp_path / "out" / "trades_broker" / "dossier.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vrd"], "give a STRATEGY, or --trades"),
        (["vrd", "QMLStrategy"], "0 --symbol and 0 --data"),
        (["vrd", "QMLStrategy", "-s", "BTC/USDT"], "no data of 'BTC/USDT'"),
        (["vrd", "Nothing", "-s", "GOOG"], "strategy 'Nothing' is unknown"),
        (["vrd", "QMLStrategy", "-s", "GOOG", "--grid", "atr_period"], "--grid 'atr_period' is not understood"),
        (["vrd", "QMLStrategy", "-s", "GOOG", "--require", "MAYBE"], "--require is DEPLOY or CAUTION"),
        (["vrd", "QMLStrategy", "-s", "GOOG", "--config", "absent.toml"], "thresholds cannot be read"),
        (["vrd", "--trades", "absent.csv"], "absent.csv cannot be read"),
        (["vrd", "--trades", "absent.csv", "-s", "X"], "--trades takes no --symbol"),
    ],
)
def test_what_is_refused_says_so_with_exit_code_2(qml, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = qml(*arguments)
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())
