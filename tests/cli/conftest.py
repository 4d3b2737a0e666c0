"""A registry that a small real run filled, and the command line called in this process."""

from __future__ import annotations

import shutil
import warnings

import pytest
from backtesting import Backtest

from qml_plugin.cli import main
from tests.neighbours.conftest import same_past, two_markets  # noqa: F401


@pytest.fixture(scope="session")
def filled_once(tmp_path_factory, goog):
    from strategies.moving_average import MovingAverageCross

    path = tmp_path_factory.mktemp("registry") / "experiments.db"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="backtesting")
        host = Backtest(goog, MovingAverageCross, cash=1_000_000, exclusive_orders=True, finalize_trades=True)
        host.run(symbol="GOOG", timeframe="1d", mode="shadow", registry=f"sqlite:///{path}", fast=5, slow=20)
    return path


@pytest.fixture
def database(filled_once, tmp_path):
    """A copy for one test."""
    return shutil.copy(filled_once, tmp_path / "experiments.db")


@pytest.fixture
def url(database):
    return f"sqlite:///{database}"


@pytest.fixture
def qml(capsys, monkeypatch):
    """Calls ``qml`` and returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("QML_DB", raising=False)

    def call(*arguments):
        capsys.readouterr()
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call
