"""Recorded runs as runs of MLflow, for those who compare them there."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qml_plugin.clock import from_datetime
from qml_plugin.errors import DataError, MissingExtra
from qml_plugin.registry.comparing import grouped

RUN_ID_TAG = "qml.run_id"
_STATES = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_AT_ONCE = 1_000
# What MLflow takes: names of 250 characters, parameters of 6,000, tags of 5,000, and so many in one call.
_LONGEST_NAME = 250
_LONGEST_PARAM = 6_000
_LONGEST_TAG = 5_000
_MOST_PARAMS = 100
_REFUSED_IN_NAMES = re.compile(r"^\.|[^A-Za-z0-9_.\- ]")
_PARAM_GROUPS = ("parameters", "settings", "host")
_TAG_GROUPS = ("run", "data", "code", "libraries", "snapshot")


@dataclass(frozen=True, slots=True)
class Exported:
    """Where runs were exported to, and how many of them were new there."""

    tracking_uri: str
    n_created: int
    n_updated: int


def export_runs(
    runs: Sequence[Mapping[str, Any]], *, tracking_uri: str | None = None, experiment: str = "qml"
) -> Exported:
    """Copy runs to MLflow, one of its runs for each; one that is there already is brought up to date.

    Parameters
    ----------
    runs : sequence of mapping
        As from `RunLedger.get_runs`.
    tracking_uri : str, optional
        Such as ``"sqlite:///mlflow.db"`` or ``"http://localhost:5000"``; MLflow's own default where it is None.
    experiment : str, default="qml"
        Name of the MLflow experiment that holds them; made if missing.

    Returns
    -------
    Exported
        A run is found again by its tag ``qml.run_id``. Parameters (``parameters.…``, ``settings.…``, ``host.…``) never
        change for one run id. Metrics get the run's end as their time. The rest is tags, among them ``qml.data.data_hash``,
        ``qml.status``, ``qml.run.error`` and MLflow's own ``mlflow.source.git.commit``. MLflow keeps the start of a run
        as it was first exported; ``qml.started_at`` is that of the last. A character that MLflow takes in no name becomes
        ``_x5b_``, its code; longer texts than it takes are cut.

    Raises
    ------
    MissingExtra
        If MLflow is not installed.
    DataError
        If MLflow refuses; the runs before the refused one are exported, and exporting again goes on from there.
    """
    # It would report its use to its makers.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise MissingExtra.for_module("mlflow", "mlflow") from error
    n_created = 0
    try:
        client = MlflowClient(tracking_uri=tracking_uri)
        found = client.get_experiment_by_name(experiment)
        experiment_id = client.create_experiment(experiment) if found is None else found.experiment_id
        there = dict(_exported(client, experiment_id))
        for run in runs:
            known = there.get(run["run_id"])
            _write(client, _created(client, experiment_id, run) if known is None else known, run)
            n_created += known is None
    except MlflowException as error:
        said = str(error).strip(" .")
        raise DataError(
            f"MLflow refused the export: {said}. Mend that and export again: nothing is doubled."
        ) from error
    return Exported(str(client.tracking_uri), n_created, len(runs) - n_created)


def _exported(client: Any, experiment_id: str) -> Iterator[tuple[str, str]]:
    """Our id and MLflow's of every run in the experiment. Read, not searched for: a search would take the id as a query."""
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=_AT_ONCE, page_token=token)
        yield from ((run.data.tags[RUN_ID_TAG], run.info.run_id) for run in page if RUN_ID_TAG in run.data.tags)
        token = page.token
        if not token:
            return


def _created(client: Any, experiment_id: str, run: Mapping[str, Any]) -> str:
    name = f"{run['strategy_name']} {run['symbol']} {run['run_id'][:8]}"[:_LONGEST_NAME]
    created = client.create_run(
        experiment_id, start_time=_ms(run["started_at"]), tags={RUN_ID_TAG: run["run_id"]}, run_name=name
    )
    return str(created.info.run_id)


def _write(client: Any, mlflow_id: str, run: Mapping[str, Any]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    groups = grouped(run)
    ended = _ms(run["finished_at"] or run["started_at"])
    params = [
        Param(_name(f"{group}.{name}"), str(value)[:_LONGEST_PARAM])
        for group in _PARAM_GROUPS
        for name, value in groups[group].items()
    ]
    metrics = [
        Metric(_name(name), float(value), ended, 0)
        for name, value in groups["metrics"].items()
        if isinstance(value, (int, float))
    ]
    tags = [RunTag(name, str(value)[:_LONGEST_TAG]) for name, value in _tags(run, groups) if value is not None]
    for first in range(0, len(params), _MOST_PARAMS):
        client.log_batch(mlflow_id, params=params[first : first + _MOST_PARAMS])
    client.log_batch(mlflow_id, metrics=metrics, tags=tags)
    if run["status"] == "running":
        client.update_run(mlflow_id, status="RUNNING")
    else:
        client.set_terminated(mlflow_id, status=_STATES[run["status"]], end_time=ended)


def _tags(run: Mapping[str, Any], groups: Mapping[str, Mapping[str, object]]) -> Iterator[tuple[str, object]]:
    yield RUN_ID_TAG, run["run_id"]
    yield "qml.status", run["status"]
    yield "qml.started_at", run["started_at"]
    yield "qml.finished_at", run["finished_at"]
    yield "mlflow.source.git.commit", run["git_hash"]
    for group in _TAG_GROUPS:
        for name, value in groups[group].items():
            yield _name(f"qml.{group}.{name}"), value


def _name(text: str) -> str:
    """A name that MLflow takes."""
    name = _REFUSED_IN_NAMES.sub(lambda found: f"_x{ord(found[0]):x}_", text) or "_"
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 17]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _ms(moment: datetime) -> int:
    return from_datetime(moment) // 1000
