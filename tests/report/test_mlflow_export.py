"""Runs in MLflow: the real client on a real local store."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing

import numpy as np
import pytest

from qml_plugin.cli import main
from qml_plugin.errors import DataError, MissingExtra
from qml_plugin.registry import PatternRegistry
from qml_plugin.report import mlflow_export
from qml_plugin.report.mlflow_export import Exported, export_runs
from tests.registry.registry_samples import make_run, save
from tests.registry.test_registry_ledger import begun, ended

pytestmark = [
    # MLflow's own code, on newer libraries than it knows.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture
def registry(tmp_path):
    return PatternRegistry(f"sqlite:///{tmp_path}/registry.db")


def test_without_the_package_the_install_command_is_named(registry, monkeypatch):
    for name in ("mlflow", "mlflow.exceptions", "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"mlflow is not installed .* pip install 'qml-plugin\[mlflow\]'"):
        export_runs(registry.get_runs())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("strategy.fast", "strategy.fast"),
        ("a[red]", "a_x5b_red_x5d_"),
        ("../../x", "_x2e_._x2f_.._x2f_x"),
        ("", "_"),
        ("\x1b", "_x1b_"),
        ("é", "_xe9_"),
    ],
)
def test_names_that_mlflow_would_refuse_are_spelled_out(text, name):
    assert mlflow_export._name(text) == name


def test_long_names_are_cut_and_stay_different():
    one, other = (mlflow_export._name("x" * 300 + last) for last in "ab")
    assert len(one) == len(other) == 250
    assert one != other


# With MLflow


@pytest.fixture
def uri(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed: pip install 'qml-plugin[mlflow]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def there(uri):
    """Reads what MLflow holds, by our run id."""
    from mlflow.tracking import MlflowClient

    def read(experiment="qml"):
        client = MlflowClient(tracking_uri=uri)
        found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        runs = {run.data.tags["qml.run_id"]: run for run in found}
        assert len(runs) == len(found), "no run is there twice"
        return runs

    return read


def test_a_run_is_copied_with_all_that_is_recorded(registry, uri, there):
    params = {"strategy": {"fast": 5, "stop": None}, "qml": {"mode": "gate"}, "host": {"cash": 100.5}}
    run = make_run(
        params=params, metrics={"sharpe_annual": 0.1 + 0.2, "n": 3, "no_value": float("nan")}, git_hash="abc"
    )
    save(registry, run=run)
    assert export_runs(registry.get_runs(), tracking_uri=uri) == Exported(uri, 1, 0)
    (copy,) = there().values()
    assert copy.data.params == {
        "parameters.fast": "5", "parameters.stop": "None", "settings.mode": "gate", "settings.seed": "7", "host.cash": "100.5",
    }  # fmt: skip
    assert copy.data.metrics == {"sharpe_annual": 0.1 + 0.2, "n": 3.0}
    assert (copy.info.status, copy.info.start_time, copy.info.end_time) == ("FINISHED", run.started_at // 1000, run.finished_at // 1000)  # fmt: skip
    assert copy.info.run_name == "Cross GOOG run-1"
    tags = copy.data.tags
    assert tags["qml.run_id"] == "run-1"
    assert tags["qml.data.data_hash"] == "d" * 64
    assert tags["mlflow.source.git.commit"] == tags["qml.code.git_hash"] == "abc"
    assert (tags["qml.status"], tags["qml.libraries.numpy"]) == ("finished", "2")
    assert "qml.run.error" not in tags


def test_exporting_again_updates_and_never_doubles(registry, uri, there):
    save(registry, run=ended("failed", "a"))
    registry.start_run(begun("b"))
    save(registry, run=ended("interrupted", "c"))
    assert export_runs(registry.get_runs(), tracking_uri=uri) == Exported(uri, 3, 0)
    first = there()
    assert {name: run.info.status for name, run in first.items()} == {"a": "FAILED", "b": "RUNNING", "c": "KILLED"}
    assert first["a"].data.tags["qml.run.error"] == "ValueError: no"
    later = make_run().finished_at + 10_000
    save(registry, run=ended("finished", "a", metrics={"sharpe": 2.0}, finished_at=later))
    save(registry, run=ended("finished", "b", metrics={"sharpe": 1.0}))
    save(registry, run=make_run("d"))
    assert export_runs(registry.get_runs(), tracking_uri=uri) == Exported(uri, 1, 3)
    assert export_runs(registry.get_runs(), tracking_uri=uri) == Exported(uri, 0, 4)
    found = there()
    assert {name: run.info.status for name, run in found.items()} == {"a": "FINISHED", "b": "FINISHED", "c": "KILLED", "d": "FINISHED"}  # fmt: skip
    assert found["a"].data.metrics == {"sharpe": 2.0}
    assert found["a"].info.end_time == later // 1000
    assert all(found[name].info.run_id == first[name].info.run_id for name in first)
    save(registry, run=ended("finished", "a", metrics={"sharpe": -1.0}, finished_at=later + 5_000))
    export_runs(registry.get_runs(), tracking_uri=uri)
    assert there()["a"].data.metrics == {"sharpe": -1.0}, "the last value counts, not the largest"


def test_hostile_texts_are_texts(registry, uri, there):
    hostile = ["' or tags.x = 'y", "[red]", "\x1b[2J", "<script>", "../../etc/passwd", "a" * 9_000]
    for number, text in enumerate(hostile):
        params = {"strategy": {text: text}, "qml": {}, "host": {}}
        changes = {
            "symbol": text,
            "strategy_name": text,
            "params": params,
            "metrics": {text: 1.0},
            "versions": {text: text},
        }
        save(registry, run=make_run(f"run-{number}", **changes))
    save(registry, run=make_run("' or '1'='1"))
    n_runs = len(hostile) + 1
    assert export_runs(registry.get_runs(), tracking_uri=uri) == Exported(uri, n_runs, 0)
    assert export_runs(registry.get_runs(), tracking_uri=uri) == Exported(uri, 0, n_runs)
    found = there()
    assert found["run-2"].data.params["parameters._x1b__x5b_2J"] == "\x1b[2J"
    assert found["run-4"].data.tags["qml.data.symbol"] == "../../etc/passwd"
    assert len(found["run-5"].data.tags["qml.data.symbol"]) == 5_000


def test_many_parameters_and_runs_beyond_one_page(registry, uri, there, monkeypatch):
    monkeypatch.setattr(mlflow_export, "_AT_ONCE", 2)
    params = {"strategy": {f"p{number:03}": number for number in range(250)}, "qml": {}, "host": {}}
    for number in range(5):
        save(registry, run=make_run(f"run-{number}", params=params))
    export_runs(registry.get_runs(), tracking_uri=uri)
    assert export_runs(registry.get_runs(), tracking_uri=uri) == Exported(uri, 0, 5)
    assert len(there()["run-3"].data.params) == 251


def test_experiments_are_apart(registry, uri, there):
    save(registry, run=make_run(returns_frac=np.array([0.1])))
    export_runs(registry.get_runs(), tracking_uri=uri, experiment="one")
    assert export_runs(registry.get_runs(), tracking_uri=uri, experiment="two").n_created == 1
    assert len(there("one")) == len(there("two")) == 1


def test_what_mlflow_refuses_is_an_error_of_ours(registry, uri, tmp_path):
    with pytest.raises(DataError, match=r"MLflow refused the export: .*Mend that and export again"):
        export_runs(registry.get_runs(), tracking_uri=f"file://{tmp_path}/mlruns")
    with pytest.raises(DataError, match="MLflow refused the export"):
        export_runs(registry.get_runs(), tracking_uri=uri, experiment="")


def test_the_command(registry, uri, tmp_path, capsys):
    for name in ("abc", "abd"):
        save(registry, run=make_run(name))

    def export(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["runs", "export-mlflow", "--db", registry.url, "--tracking-uri", uri, *arguments])
        assert not end.value.code
        return [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()]

    assert export("abc", "--experiment", "mine") == [uri, "mine", "1 created, 0 updated"]
    assert export() == [uri, "qml", "2 created, 0 updated"]
    assert export("abd") == [uri, "qml", "0 created, 1 updated"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "registry.db") == ["mlflow.db"]
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (3,)
