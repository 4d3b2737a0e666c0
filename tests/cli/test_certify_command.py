import json

import pytest

from tests.conftest import random_walk


def test_a_few_markets_are_counted_kept_and_shown(qml, tmp_path):
    arguments = ("certify", "--families", "breakout", "--worlds", "null", "--sets", "1", "--seed", "3", "--out", tmp_path / "sets")  # fmt: skip
    code, out, err = qml(*arguments, "--html", tmp_path / "c.html", "--json", tmp_path / "c.json")
    assert code == 0, err
    assert "null   breakout  1" in out
    assert "Of 1 markets without an edge, searches would be called DEPLOY on" in out
    assert (tmp_path / "c.html").exists()
    numbers = json.loads((tmp_path / "c.json").read_text())
    assert [row["n"] for row in numbers["counts"]] == [1]
    assert numbers["market"]["n_bars"] == 21_900
    code, out, _ = qml(*arguments, "--table", "--json", "-")
    assert json.loads(out) == numbers
    code, out, _ = qml(*arguments, "--table", "--permutations", "19")
    assert "no set is kept" in out


def test_ones_own_strategy_on_ones_own_market(qml, tmp_path):
    random_walk(900, 1, freq="D").to_csv(tmp_path / "b.csv", index_label="time")
    code, out, err = qml(
        "certify", "MovingAverageCross", "--grid", "fast=5,10", "--grid", "slow=20", "-s", "B", "-t", "1d", "--data",
        tmp_path / "b.csv", "--sets", "1", "--worlds", "all", "--out", tmp_path / "sets",
    )  # fmt: skip
    assert code == 0, err
    assert ("This is no result" in out) != ("this strategy and its search would be called DEPLOY on 0" in out)
    assert len(list((tmp_path / "sets").glob("*-MovingAverageCross-2000000-*.jsonl"))) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--families", "nothing"], "there is no family 'nothing'"),
        (["--worlds", "moon"], "there is no world 'moon'"),
        (["MovingAverageCross", "--families", "breakout"], "Give them or a STRATEGY"),
        (["--grid", "n=1,2"], "--grid is the search of a STRATEGY"),
        (["--permutations", "5"], "cannot reach p = 0.05"),
        (["-s", "X"], "there is no data of 'X' here"),
        (["-t", "4h"], "--timeframe says how long the bars"),
        (["--html", "absent/page.html"], "absent"),
        (["MovingAverageCross", "--worlds", "edge1"], "edge1 plants an edge"),
    ],
)
def test_what_is_refused_says_so_with_exit_code_2(qml, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = qml("certify", *arguments)
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())
