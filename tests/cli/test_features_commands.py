"""The commands about features: what they print and write, what they refuse, and what the first one says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qml_plugin.features import CATALOGUE, compute_features
from qml_plugin.features.redundancy import redundancy
from qml_plugin.features.warmup import warm_up
from tests.cli.test_commands import is_refused, strict
from tests.conftest import random_walk

QML = Path(sys.executable).with_name("qml")
PACKAGE = Path(__file__).parents[2] / "qml_plugin"
OF_BARS = [feature.name for feature in CATALOGUE if feature.needs == "bars"]
BLOCKS = set("▁▂▃▄▅▆▇█")


@pytest.fixture(scope="module", autouse=True)
def _warm():
    """Only the test of the first time may meet an empty cache."""
    warm_up()


@pytest.fixture(scope="module")
def bars():
    return random_walk(900, 5)


@pytest.fixture
def data(bars, tmp_path):
    path = tmp_path / "walk.csv"
    bars.to_csv(path)
    return path


# show


def test_show_explains_and_draws(qml, data, bars):
    code, out, err = qml("features", "show", "mom_er_20", data)
    assert (code, err) == (0, "")
    feature = CATALOGUE["mom_er_20"]
    for said in (feature.definition, feature.source, feature.version, f"window      {feature.window} bars"):
        assert said in out
    assert "walk, 900 bars of 1h from 2020-01-01 00:00 to 2020-02-07 11:00\n" in out
    assert "missing     2.2 %: 20 in the warm-up, 0 after it" in out
    values = compute_features(bars)["mom_er_20"]
    lines = out.splitlines()
    row = next(i for i, line in enumerate(lines) if line.split()[:2] == ["0", "%"])
    assert lines[row + 1].split() == [
        f"{values.quantile(q):.4g}" for q in (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
    ]
    assert set(out) >= BLOCKS
    assert lines.index("close") < lines.index("mom_er_20", 1), "the price lies over the feature"
    assert "GOOG" not in out
    assert max(map(len, lines[row + 2 :])) <= 100, "as wide as the terminal"


def test_show_without_data_takes_goog_and_says_so(qml):
    code, out, _ = qml("features", "show", "ctx_rsi_14")
    assert code == 0
    assert "GOOG, 2,148 bars of 1d" in out
    assert "bundled with backtesting.py; pass DATA for your own" in out


def test_show_without_data_and_host_still_explains(tmp_path):
    script = "import sys; sys.modules['backtesting'] = None\nfrom qml_plugin.cli import main; main(sys.argv[1:])"
    call = [sys.executable, "-c", script, "features", "show", "ctx_rsi_14"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "Wilder RSI over 14" in done.stdout
    assert done.stdout.endswith("Pass DATA to see its values on your bars.\n")
    done = subprocess.run([*call, "--html", "x.html"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "qml: there are no bars to draw. Pass DATA" in done.stderr


def test_show_of_a_feature_of_an_entry_says_that_bars_are_not_enough(qml, data, tmp_path):
    code, out, _ = qml("features", "show", "geo_leg1_atr", data)
    assert code == 0
    assert "It needs an entry's setup: bars alone give it no value." in out
    code, out, err = qml("features", "show", "geo_risk_atr", data, "--html", tmp_path / "x.html")
    assert code == 1
    assert "geo_risk_atr needs an entry's order: bars alone give it no value, so there is no page" in err
    assert not (tmp_path / "x.html").exists()


def test_show_of_a_feature_without_a_value_says_so(qml, data):
    code, out, _ = qml("features", "show", "ctx_dist_ema_200_atr", data)
    assert code == 0
    assert "missing     100.0 %: 900 in the warm-up, 0 after it" in out
    assert out.endswith("It has no value on these bars.\n")


def test_show_writes_a_page(qml, data, tmp_path):
    code, out, _ = qml("features", "show", "mom_er_20", data, "--html", tmp_path / "er.html", "--symbol", "<b>X")
    assert code == 0
    assert out.endswith(f"page  {tmp_path / 'er.html'}\n")
    html = (tmp_path / "er.html").read_text(encoding="utf-8")
    assert "<title>mom_er_20 on &lt;b&gt;X 1h</title>" in html
    assert is_refused_after_facts(qml("features", "show", "mom_er_20", data, "--html", tmp_path / "no" / "er.html"))


def is_refused_after_facts(answer):
    code, _, err = answer
    return code == 1 and err.startswith("qml: ") and "cannot be written" in err


def test_show_refuses_unknown_names_and_other_files(qml, data, tmp_path):
    assert is_refused(
        qml("features", "show", "ctx_rsi_15"), 1, "there is no feature 'ctx_rsi_15'. Did you mean ctx_rsi_14"
    )
    assert is_refused(qml("features", "show", "ctx_rsi_14", data, "--html", "x.pdf"), 1, "x.pdf is no .html file")


# Bars


def test_times_may_be_local(qml, tmp_path):
    path = tmp_path / "local.csv"
    days = random_walk(300, 1, freq="D")
    days.to_csv(path)
    out = qml("features", "show", "mom_er_20", path, "--tz", "America/New_York")[1]
    assert "local, 300 bars of 1d from 2020-01-01 05:00 to 2020-10-26 04:00" in out, "one day has 23 hours"
    hours = random_walk(2000, 1)
    hours.to_csv(path)
    for zone, said in (("Mars/Olympus", "No time zone found"), ("America/New_York", "2020-03-08 02:00:00")):
        code, _, err = qml("features", "show", "mom_er_20", path, "--tz", zone)
        assert code == 1
        assert f"the times are not times of tz='{zone}': " in err
        assert said in err


def test_the_timeframe_may_be_said(qml, data):
    assert "bars of 1h from" in qml("features", "show", "mom_er_20", data, "--timeframe", "60m")[1]
    code, _, err = qml("features", "show", "mom_er_20", data, "--timeframe", "1d")
    assert code == 1
    assert "Bars may not be closer together than their timeframe" in err


@pytest.mark.parametrize("command", [("show", "ctx_rsi_14"), ("redundancy",), ("compute",)], ids=lambda c: c[0])
def test_bad_bars_are_refused_with_the_row(qml, bars, tmp_path, command):
    path = tmp_path / "bad.csv"
    bad = bars.copy()
    bad.iloc[7, bad.columns.get_loc("High")] = 1.0
    bad.to_csv(path)
    options = ["--out", tmp_path / "f.csv"] if command[0] == "compute" else []
    code, _, err = qml("features", *command, path, *options)
    assert code == 1
    assert "High 1 is below" in err
    assert "at row 7" in err
    code, _, err = qml("features", *command, tmp_path / "none.csv", *options)
    assert code == 1
    assert "none.csv cannot be read" in err
    assert not (tmp_path / "f.csv").exists()


# compute


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_compute_writes_every_feature_of_every_bar(qml, data, bars, tmp_path, suffix):
    out_file = tmp_path / f"f{suffix}"
    code, out, err = qml("features", "compute", data, "--out", out_file)
    assert (code, err) == (0, "")
    read = pd.read_parquet(out_file) if suffix == ".parquet" else pd.read_csv(out_file, index_col=0)
    expected = compute_features(bars)
    np.testing.assert_array_equal(read.to_numpy(), expected.to_numpy())
    assert tuple(read.columns) == CATALOGUE.names
    assert f"size      900 rows x {len(CATALOGUE)} features\n" in out
    assert f"finite    {100 * np.isfinite(expected.to_numpy()).mean():.1f} % of the values" in out
    assert " s\n" in out


def test_compute_replaces_nothing_unasked(qml, data, tmp_path):
    out_file = tmp_path / "f.csv"
    out_file.write_text("mine")
    assert is_refused(
        qml("features", "compute", data, "--out", out_file), 1, "is there already. Choose another name, or pass --force"
    )
    assert out_file.read_text() == "mine"
    assert qml("features", "compute", data, "--out", out_file, "--force")[0] == 0
    assert out_file.read_text().startswith("opened_at,ctx_")
    before = data.read_bytes()
    assert is_refused(qml("features", "compute", data, "--out", data, "--force"), 1, "is the file of the bars")
    assert data.read_bytes() == before


def test_compute_wants_a_file_it_can_write(qml, data, tmp_path):
    assert is_refused(qml("features", "compute", data, "--out", tmp_path / "f.json"), 1, "neither .parquet nor .csv")
    assert is_refused(qml("features", "compute", data, "--out", tmp_path / "no" / "f.csv"), 1, "there is no folder")
    assert qml("features", "compute", data)[0] == 2


# redundancy


def test_redundancy_says_what_the_function_finds(qml, data, bars):
    found = redundancy(compute_features(bars)[OF_BARS])
    told = strict(qml("features", "redundancy", data, "--json")[1])
    assert told["n_clusters"] == len(found.clusters)
    assert told["n_features"] == found.n_features
    assert told["n_effective"] == pytest.approx(found.n_effective)
    assert [one["representative"] for one in told["clusters"]] == list(found.representatives)
    assert told["never_finite"] == list(found.never_finite)
    code, out, err = qml("features", "redundancy", data)
    assert (code, err) == (0, "")
    several = [one for one in found.clusters if one.others]
    assert [line.split()[0] for line in out.splitlines()[1 : len(several) + 1]] == [
        one.representative for one in several
    ]
    assert (
        f"clusters          {len(found.clusters)} at |r| > 0.95, {len(several)} of them with more than one feature\n"
        in out
    )
    assert f"effective number  {found.n_effective:.1f} " in out
    fewer = strict(qml("features", "redundancy", data, "--threshold", "0.7", "--json")[1])
    assert fewer["n_clusters"] < told["n_clusters"]


def test_redundancy_refuses_a_threshold_that_is_none(qml, data):
    assert is_refused(
        qml("features", "redundancy", data, "--threshold", "95"), 1, "threshold is 95.0. Choose an absolute"
    )


# The first time


@pytest.mark.slow
def test_the_first_computation_says_that_it_compiles_and_the_next_ones_do_not(data, tmp_path):
    # The machine code comes along, all but that of one kernel of the bars and one of entries: to compile all takes a minute.
    package = shutil.copytree(PACKAGE, tmp_path / "copy" / "qml_plugin")
    for kernel in ("ctx.fill-*", "entry._order-*"):
        for file in package.glob(f"features/__pycache__/{kernel}"):
            file.unlink()
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    environment.pop("NUMBA_CACHE_DIR", None)

    def run(*arguments):
        done = subprocess.run(
            [QML, *map(str, arguments)], capture_output=True, text=True, env=environment, check=True, timeout=280
        )
        return done.stdout, done.stderr

    show = ("features", "show", "ctx_rsi_14", data)
    first, told = run(*show)
    assert told.startswith("compiling the feature kernels, once per machine and version, about ")
    assert "qml warmup" in told
    assert told.count("\n") == 1
    assert run(*show) == (first, "")
    out, _ = run("warmup")
    assert out.startswith("compiled "), "what a single bar and an entry need is still to do"
    out, told = run("warmup")
    assert out.startswith("already compiled, loaded in ")
    assert told == ""
    assert run("features", "compute", data, "--out", tmp_path / "f.csv")[1] == ""


def test_warmup_when_warm(qml):
    qml("warmup")
    code, out, err = qml("warmup")
    assert (code, err) == (0, "")
    assert out.startswith("already compiled, loaded in ")
