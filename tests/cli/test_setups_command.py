import json

import pytest
from typer.testing import CliRunner

from qml_plugin.bars import bars_from_frame
from qml_plugin.cli.app import app
from qml_plugin.detection import find_quasimodo
from qml_plugin.errors import DataError
from tests.conftest import random_walk


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("bars") / "WALK.csv"
    random_walk(900, 5).to_csv(path)
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["setups", *map(str, arguments)], catch_exceptions=False)


def test_lists_what_the_detector_finds(data):
    found = find_quasimodo(bars_from_frame(random_walk(900, 5), symbol="WALK"))
    shown = json.loads(run(data, "--json", "-n", 100).stdout)
    assert [one["known_bar"] for one in shown] == [setup.known_bar for setup in found]
    assert [one["points"][0]["px"] for one in shown] == pytest.approx([setup.points[0].px for setup in found])
    assert all(one["at"] and one["levels"][0]["at"] for one in shown)
    table = run(data, "-n", 2).stdout
    assert f"{len(found)} setups on 900 bars, the last 2 shown" in table
    assert "change of character" in table


def test_other_swings_find_others(data):
    listed = [
        run(data, "--json", *options).stdout
        for options in (
            (),
            ("--swing-atr", 2),
            ("--swing-model", "fractal"),
            ("--swing-model", "fractal", "--fractal-bars", 5),
        )
    ]
    assert len(set(listed)) == 4


def test_writes_a_page_and_says_where(data, tmp_path):
    page = tmp_path / "setups.html"
    assert str(page) in run(data, "--html", page).stdout
    assert page.read_text().count('class="panel decision setup"') > 2


def test_bundled_bars_have_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = json.loads(run("GOOG", "--json", "-n", 1).stdout)
    assert listed == json.loads(run("GOOG", "--json", "-n", 1, "--tz", "UTC").stdout)
    assert len(listed) == 1
    random_walk(300, 5).to_parquet("GOOG")
    with pytest.raises(DataError, match="GOOG"):
        run("GOOG")


def test_refusals_name_what_is_wrong(data, tmp_path):
    with pytest.raises(DataError, match=r"setups.txt is no .html file"):
        run(data, "--html", tmp_path / "setups.txt")
    refused = run(data, "--swing-model", "zigzag")
    assert refused.exit_code == 2
    assert "--swing-model is 'zigzag'" in refused.stderr
    with pytest.raises(DataError, match="cannot be written"):
        run(data, "--html", tmp_path / "nowhere" / "setups.html")
    assert "no setup on the 900 bars" in run(data, "--swing-atr", 50).stdout
