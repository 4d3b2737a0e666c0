from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import random_walk

TINY = """
name: tiny
strategies:
  - strategy: rules.py:Momentum
    grid: {{n_bars: [4, 8]}}
  - strategy: rules.py:Every
    grid: {{n_bars: [6, 10]}}
    fixed: {{trouble: "{flag}"}}
markets:
  - symbol: AAA
    timeframe: 1h
    file: "{{symbol}}.csv"
gate: {{mode: {mode}}}
validation: {{quick: true, windows: 2, draws: 19, paths: 100}}
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A folder with the bars of a market and the strategies, beside which studies are written."""
    place = tmp_path_factory.mktemp("studies")
    random_walk(260, 1).to_csv(place / "AAA.csv", index_label="time")
    shutil.copy(Path(__file__).with_name("rules.py"), place)
    return place


@pytest.fixture(scope="session")
def tiny(folder) -> Path:
    """A study of two strategies on a market; the second fails while ``flag`` is there."""
    file = folder / "tiny.yaml"
    file.write_text(TINY.format(flag=folder / "flag", mode="shadow"))
    return file
