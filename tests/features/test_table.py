from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qml_plugin.errors import DataError
from qml_plugin.features import CATALOGUE, compute_features
from qml_plugin.features.table import check_target, write_features

from .data import make_bars


@pytest.mark.parametrize("n", [2, 300, 20_001])  # a block, and two of which the last would be a single bar
def test_a_file_holds_what_compute_features_returns(tmp_path, n):
    bars = make_bars(n)
    steps = []
    written = write_features(bars, tmp_path / "f.parquet", lambda *step: steps.append(step))
    read = pd.read_parquet(tmp_path / "f.parquet")
    expected = compute_features(bars)
    assert read.index.name == "opened_at"
    assert read.attrs["feature_set"] == CATALOGUE.feature_set
    pd.testing.assert_frame_equal(read, expected, check_names=False, check_exact=True)
    assert (written.n_rows, written.n_features) == expected.shape
    assert written.finite_frac == pytest.approx(np.isfinite(expected.to_numpy()).mean())
    assert steps[-1] == (n, n, "writing")
    assert list(tmp_path.iterdir()) == [tmp_path / "f.parquet"]


def test_a_csv_holds_every_bit(tmp_path):
    bars = make_bars(20_100)
    write_features(bars, tmp_path / "f.csv")
    read = pd.read_csv(tmp_path / "f.csv", index_col="opened_at")
    np.testing.assert_array_equal(read.to_numpy(), compute_features(bars).to_numpy())
    assert pd.DatetimeIndex(read.index)[0] == pd.Timestamp(bars.opened_at[0], unit="us", tz="UTC")


def test_a_file_that_may_not_be_written_is_refused_before_anything_else(tmp_path):
    there = tmp_path / "there.csv"
    there.write_text("mine")
    with pytest.raises(DataError, match=r"f.txt is neither .parquet nor .csv"):
        check_target(tmp_path / "f.txt", may_replace=True)
    with pytest.raises(DataError, match="there is no folder"):
        check_target(tmp_path / "deep" / "f.csv", may_replace=True)
    with pytest.raises(DataError, match=r"there already. Choose another name, or pass --force"):
        check_target(there, may_replace=False)
    check_target(there, may_replace=True)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="there already"):
        check_target(tmp_path / "folder.csv", may_replace=True)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        write_features(make_bars(20), tmp_path / "none" / "f.parquet")
    target = tmp_path / "f.csv"
    target.write_text("mine")

    def stop(done, total, text):
        if text == "writing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_features(make_bars(20), target, stop)
    assert target.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [target]
