"""Frozen models: their files beside the database, their rows in it, and which of them is active."""

from __future__ import annotations

import math
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from qml_plugin.clock import canonical_timeframe, to_datetime
from qml_plugin.errors import DataError, ModelLoadError, RegistryError
from qml_plugin.model_files import ModelCard, read_card, read_model, write_whole
from qml_plugin.registry.checks import MODELS, model_file
from qml_plugin.registry.connection import Database
from qml_plugin.registry.schema import ml_model_versions

_MODELS = ml_model_versions.c
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "qml_plugin/model")
# What the file's bytes do not tell, and a score depends on.
_MEANING = ("features", "feature_set", "base_rate", "speaks", "slope", "intercept", "trained_through")


class ModelStore:
    """The part of a registry that keeps frozen models."""

    _database: Database

    def register_model(
        self,
        file: Path | str,
        card: ModelCard | Path | str,
        *,
        strategy: str,
        timeframe: str,
        notes: str | None = None,
    ) -> str:
        """Keep a copy of a model in the folder ``models`` beside the database, and a row that describes it.

        Parameters
        ----------
        file : path
            ``.ubj`` or ``.json``, as ``XGBoostPredictor.save`` writes it.
        card : ModelCard or path
            What ``save`` returned, or the card's file.
        strategy, timeframe : str
            Whose entries it is to score.
        notes : str, optional
            Text for people.

        Returns
        -------
        str
            The ``model_id``: the same for the same file, strategy and timeframe. Registering again changes nothing, but for
            notes where there were none; other notes than those that are kept are left out with a RuntimeWarning.

        Raises
        ------
        ModelLoadError
            If the file is not the card's, is damaged, or is no model (a pickle), or the path that is stored of it is not
            that of a model; nothing is kept.
        DataError
            If the model is registered with another card, a name is no text, or the folder cannot be written.
        RegistryError
            If the registry lives in memory and so has no folder.
        """
        card = card if isinstance(card, ModelCard) else read_card(Path(card))
        source = Path(file)
        content = read_model(source, card.sha256)
        strategy, timeframe = _text("strategy", strategy), canonical_timeframe(timeframe)
        model_id = str(uuid.uuid5(_NAMESPACE, "\n".join([str(card.sha256), strategy, timeframe])))
        model_path = f"{MODELS}/{model_id}{source.suffix.lower()}"
        row = _row(model_id, model_path, card, strategy, timeframe, notes)
        target = self._database.folder / model_path
        with self._database.write() as connection:
            found = connection.execute(_query(model_id)).mappings().one_or_none()
            if found is not None:
                model_file(self._database.folder, model_id, found["model_path"])
                _refuse_other_card(dict(found), card)
                if found["model_path"] != model_path:
                    raise DataError(
                        f"model {model_id} is registered as {found['model_path']!r}, the same bytes now as {model_path!r}. Register "
                        "the file under one suffix."
                    )
            # The lock is held, so nobody sees the row without the file; a file that is damaged is put right.
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                write_whole({target: content})
            except OSError as error:
                raise DataError(
                    f"the model cannot be kept at {target}: {error.strerror}. Nothing was registered; free space, or make the "
                    "folder writable."
                ) from error
            if found is None:
                connection.execute(sa.insert(ml_model_versions).values(**row))
            elif found["notes"] is None and notes is not None:
                connection.execute(sa.update(ml_model_versions).where(_MODELS.model_id == model_id).values(notes=notes))
        if found is not None and notes is not None and found["notes"] not in (None, notes):
            warnings.warn(
                f"model {model_id} is registered already, with the notes {found['notes']!r}: those stay, and the new ones were "
                "not kept.",
                RuntimeWarning,
                stacklevel=2,
            )
        return model_id

    def get_models(self, strategy: str | None = None, timeframe: str | None = None) -> list[dict[str, Any]]:
        """The registered models, newest first.

        Parameters
        ----------
        strategy, timeframe : str, optional
            Only these.

        Returns
        -------
        list of dict
            Every column by its name, times as naive UTC datetimes; ``features`` (names in order) and ``metrics`` stand for
            their JSON columns. The files are not looked at.
        """
        query = sa.select(ml_model_versions).order_by(_MODELS.trained_time.desc(), _MODELS.model_id)
        if strategy is not None:
            query = query.where(_MODELS.strategy == strategy)
        if timeframe is not None:
            query = query.where(_MODELS.timeframe == canonical_timeframe(timeframe))
        with self._database.read() as connection:
            return [_listed(row) for row in connection.execute(query).mappings()]

    def get_model(self, model_id: str) -> dict[str, Any]:
        """One registered model.

        Parameters
        ----------
        model_id : str

        Returns
        -------
        dict
            As in `get_models`, and ``card`` (a `ModelCard`) and ``path`` (of its file): what ``XGBoostPredictor.load``
            takes.

        Raises
        ------
        DataError
            If there is no such model.
        ModelLoadError
            If its stored path is not that of a model in the registry's folder, or its card is not as it was written.
        """
        with self._database.read() as connection:
            row = connection.execute(_query(model_id)).mappings().one_or_none()
            if row is None:
                raise self._no_such(model_id)
            return self._opened_model(row)

    def active_model(self, strategy: str, timeframe: str) -> dict[str, Any] | None:
        """The model that is active for a strategy and timeframe, as from `get_model`; None if there is none."""
        query = sa.select(ml_model_versions).where(
            _MODELS.active, _MODELS.strategy == strategy, _MODELS.timeframe == canonical_timeframe(timeframe)
        )
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
            return None if row is None else self._opened_model(row)

    def activate_model(self, model_id: str) -> None:
        """Make a model the active one of its strategy and timeframe, in place of any other, in one transaction.

        Parameters
        ----------
        model_id : str

        Raises
        ------
        DataError
            If there is no such model, or it is of no strategy and timeframe.
        ModelLoadError
            If its file is missing, damaged or not where files of models lie; the one that was active stays so.
        """
        with self._database.write() as connection:
            row = connection.execute(_query(model_id)).mappings().one_or_none()
            if row is None:
                raise self._no_such(model_id)
            if row["strategy"] is None or row["timeframe"] is None:
                raise DataError(
                    f"model {model_id} is of no strategy and timeframe. Register it with both to activate it."
                )
            read_model(model_file(self._database.folder, model_id, row["model_path"]), row["sha256"])
            _card_of(dict(row))
            same = sa.and_(_MODELS.strategy == row["strategy"], _MODELS.timeframe == row["timeframe"])
            connection.execute(sa.update(ml_model_versions).where(same, _MODELS.active).values(active=False))
            connection.execute(sa.update(ml_model_versions).where(_MODELS.model_id == model_id).values(active=True))

    def retire_model(self, model_id: str) -> bool:
        """Take a model out of use; its row and file stay. True if it was active.

        Raises
        ------
        DataError
            If there is no such model.
        """
        with self._database.write() as connection:
            row = connection.execute(_query(model_id)).mappings().one_or_none()
            if row is None:
                raise self._no_such(model_id)
            connection.execute(sa.update(ml_model_versions).where(_MODELS.model_id == model_id).values(active=False))
            return bool(row["active"])

    def _opened_model(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        path = model_file(self._database.folder, row["model_id"], row["model_path"])
        return _listed(row) | {"card": _card_of(dict(row)), "path": path}

    def _no_such(self, model_id: str) -> DataError:
        return DataError(f"model {model_id!r} is not in {self._database.name}. `qml models list` names those that are.")


def carry_files(connection: sa.Connection, source: Callable[[], Path], target: Callable[[], Path]) -> None:
    """Copy the files of the registered models from one folder of models to another, and overwrite none.

    A file that is not the one registered, or where another lies, stays behind with a RuntimeWarning. The folders are asked
    for only where there are models.

    Raises
    ------
    RegistryError
        If a file cannot be written.
    """
    for model_id, model_path, sha256 in connection.execute(
        sa.select(_MODELS.model_id, _MODELS.model_path, _MODELS.sha256)
    ).all():
        try:
            name = model_file(Path(), model_id, model_path).name
            content, file = read_model(source() / name, sha256), target() / name
            if not _is_there(file, content):
                file.parent.mkdir(parents=True, exist_ok=True)
                write_whole({file: content})
        except ModelLoadError as error:
            warnings.warn(f"model {model_id} goes without its file: {error}", RuntimeWarning, stacklevel=3)
        except OSError as error:
            raise RegistryError(
                f"the file of model {model_id} cannot be written to {target()}: {error.strerror}. Free space there, or make "
                "the folder writable, and begin again."
            ) from error


def _is_there(file: Path, content: bytes) -> bool:
    """Whether the file holds that already (ModelLoadError where it holds something else)."""
    if not file.exists():
        return False
    if file.read_bytes() != content:
        raise ModelLoadError(f"{file} is there with other bytes, and was not overwritten")
    return True


def _query(model_id: str) -> sa.Select[Any]:
    return sa.select(ml_model_versions).where(_MODELS.model_id == model_id)


def _row(
    model_id: str, model_path: str, card: ModelCard, strategy: str, timeframe: str, notes: str | None
) -> dict[str, Any]:
    accuracy = card.metrics.get("accuracy", math.nan)
    return {
        "model_id": model_id,
        "trained_time": to_datetime(card.trained_at),
        "features_used": orjson.dumps(list(card.features)).decode(),
        "test_accuracy": None if math.isnan(accuracy) else accuracy,
        "model_path": model_path,
        "active": False,
        "notes": notes,
        "trained_through": to_datetime(card.trained_through),
        "sha256": card.sha256,
        "metrics_json": orjson.dumps(dict(card.metrics)).decode(),
        "strategy": strategy,
        "timeframe": timeframe,
        "card_json": card.to_json(),
    }


def _listed(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row for people, its JSON parsed."""
    values = {str(name): value for name, value in row.items()}
    for column, name in (("features_used", "features"), ("metrics_json", "metrics")):
        text = values.pop(column)
        values[name] = None if text is None else orjson.loads(text)
    del values["card_json"]
    return values


def _card_of(row: Mapping[str, Any]) -> ModelCard:
    """The card of a row, once it is found to describe the row's file."""
    where = f"the card of model {row['model_id']}"
    if row["card_json"] is None:
        raise ModelLoadError(f"{where} is missing. Register the model again.")
    card = ModelCard.from_json(row["card_json"], where)
    if card.sha256 != row["sha256"]:
        raise ModelLoadError(f"{where} describes another file: their SHA-256 differ. Register the model again.")
    return card


def _refuse_other_card(row: Mapping[str, Any], card: ModelCard) -> None:
    """One file has one meaning; when it was trained, and on which machine, does not matter."""
    stored = _card_of(row)
    for name in _MEANING:
        ours, theirs = getattr(stored, name), getattr(card, name)
        is_same = list(ours.items()) == list(theirs.items()) if name == "features" else ours == theirs
        if not is_same:
            raise DataError(
                f"model {row['model_id']} is registered with another card: its {name} differ. The same file cannot mean two "
                "things; keep the card that it was saved with."
            )


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise DataError(f"{name} is {value!r}. It must be a text that is not empty.")
    return value
