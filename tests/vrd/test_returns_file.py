import numpy as np
import pytest

from qml_plugin.errors import DataError
from qml_plugin.vrd.returns_file import read_returns


def test_trades_of_any_host_are_read_in_order_of_their_exits(tmp_path):
    path = tmp_path / "trades.csv"
    path.write_text(
        "ExitTime,ReturnPct,cost_frac\n2024-03-01,0.02,0.001\n2024-01-01,-0.01,0.002\n2025-01-01,0.03,0.001\n"
    )
    found = read_returns(path)
    np.testing.assert_array_equal(found.returns, [-0.01, 0.02, 0.03])
    np.testing.assert_array_equal(found.costs, [0.002, 0.001, 0.001])
    assert found.per_year == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("a,b\n1,2\n", "It needs return_frac"),
        ("exit_at,return_frac\n", "has 0 rows. At least two trades"),
        ("exit_at,return_frac\n2024-01-01,0.1\n", "has 1 rows. At least two trades"),
        ("exit_at,return_frac\n2024-01-01,\n2024-01-02,1\n", "return_frac is 'nan' in line 2 of"),
        ("exit_at,return_frac\n2024-01-01,0.1\n,0.1\n2024-01-02,0.1\n", "exit_at is missing in line 3 of"),
        (
            "exit_at,return_frac\n2024-01-01,1.2\n2024-01-02,-2.5\n",
            "return_frac is -2.5 in line 3 .* more than all of the equity",
        ),
        ("exit_at,return_frac\n2024-01-01,x\n2024-01-02,1\n", "return_frac is 'x' in line 2"),
        (
            "exit_at,return_frac\n2024-01-01,1\n\nyesterday,1\n",
            "exit_at is 'yesterday' in line 4 of .*, which is no time. Use ISO",
        ),
        (
            "exit_at;return_frac\n2024-01-01;0,1\n2024-01-02;0,1\n",
            r"trades.csv has its columns separated by semicolons",
        ),
        ("exit_at,return_frac,cost_frac\n2024-01-01,0.1,0\n2024-01-02,0.1,-0.1\n", "cost_frac is -0.1 in line 3 of"),
        ("exit_at,return_frac\n2024-01-01,1\n2024-01-01,1\n", "have the same time"),
    ],
)
def test_files_without_an_answer_are_refused(tmp_path, text, message):
    path = tmp_path / "trades.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_returns(path)


def test_a_row_that_is_there_twice_is_counted_and_told(tmp_path):
    path = tmp_path / "trades.csv"
    path.write_text("exit_at,return_frac\n2024-01-01,0.1\n2024-01-02,0.1\n2024-01-01,0.1\n")
    found = read_returns(path)
    assert len(found.returns) == 3
    (warning,) = found.warnings
    assert warning.startswith("1 row repeats another exactly, the first in line 4 of")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_returns(tmp_path / "none.csv")
