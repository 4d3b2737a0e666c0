"""A frozen model as a file of XGBoost's own, and its card: written whole or not at all, read only when all of it fits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qml_plugin.errors import DataError, FeatureMismatch, ModelLoadError
from qml_plugin.gate.rungs import load_xgboost
from qml_plugin.model_files import ModelCard, card_path, check_suffix, read_card, read_model, write_whole

if TYPE_CHECKING:
    import xgboost

_OBJECTIVE = "binary:logistic"
_N_NAMED = 5


def save_model(booster: xgboost.Booster, card: ModelCard, path: Path) -> ModelCard:
    """Write a model and the card beside it; returns the card, which now holds the hash of the file.

    Parameters
    ----------
    booster : xgboost.Booster
    card : ModelCard
        What it was trained on.
    path : Path
        ``name.ubj`` (compact) or ``name.json`` (readable); the card becomes ``name.card.json``. The folder must exist.

    Returns
    -------
    ModelCard

    Raises
    ------
    ModelLoadError
        If the suffix is neither.
    DataError
        If the files cannot be written. What was there before is still there, and nothing is left behind.
    """
    check_suffix(path)
    content = bytes(booster.save_raw(raw_format=path.suffix.lower()[1:]))
    written = replace(card, sha256=hashlib.sha256(content).hexdigest())
    try:
        write_whole({path: content, card_path(path): written.to_json().encode()})
    except OSError as error:
        raise DataError(
            f"the model {path} cannot be written: {error.strerror}. An earlier file there is as it was; free space, or "
            "choose a folder that exists and may be written."
        ) from error
    return written


def load_model(path: Path, card: ModelCard | None = None, *, force: bool = False) -> tuple[xgboost.Booster, ModelCard]:
    """The model in a file, once it is found to be what its card says.

    The hash is compared first, then the structure of the file, then the versions and the features. Nothing is ever
    unpickled. A hash tells of accidents only: do not load models of people who might also have written the card.

    Parameters
    ----------
    path : Path
        ``.ubj`` or ``.json``.
    card : ModelCard, optional
        The card to hold it against, such as the registry's; the one beside the file by default.
    force : bool, default=False
        Whether to try a model of a newer XGBoost, or one whose features this version computes otherwise.

    Returns
    -------
    (Booster, ModelCard)

    Raises
    ------
    ModelLoadError
        If the file or the card is missing, damaged or something else, or a newer XGBoost wrote it.
    FeatureMismatch
        If the model has another number of inputs than the card has features, or the catalogue of this version has other
        features than the set it was trained on.
    MissingExtra
        If xgboost is not installed.
    """
    check_suffix(path)
    if card is None:
        card = read_card(card_path(path))
    content = read_model(path, card.sha256)
    if not force:
        _check_versions(path, card)
        _check_catalogue(path, card)
    booster = _parsed(path, content)
    if booster.num_features() != len(card.features):
        raise FeatureMismatch(
            f"the model {path} has {booster.num_features()} inputs and its card names {len(card.features)} features. They do "
            "not belong together; save the model again."
        )
    return booster, card


def mismatch(wanted: Sequence[str], given: Sequence[str]) -> str | None:
    """How the names given differ from those wanted, in words; None if they are the same in the same order."""
    wanted, given = list(wanted), list(given)
    if wanted == given:
        return None
    parts = [f"{len(given)} features where the model has {len(wanted)}"] if len(wanted) != len(given) else []
    kinds = {
        "missing": [n for n in wanted if n not in set(given)],
        "unknown": [n for n in given if n not in set(wanted)],
    }
    for kind, names in kinds.items():
        if names:
            more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
            parts.append(f"{kind} {', '.join(map(repr, names[:_N_NAMED]))}{more}")
    if not any(kinds.values()):
        twice = next((name for name in given if given.count(name) > 1), None)
        place = next((at for at, name in enumerate(wanted) if given[at : at + 1] != [name]), 0)
        order = f"in another order: {given[place]!r} where {wanted[place]!r} belongs"
        parts.append(order if twice is None else f"{twice!r} more than once")
    return "; ".join(parts)


def _check_versions(path: Path, card: ModelCard) -> None:
    """Refuse what a newer XGBoost wrote: it loads without a word and may be read wrongly."""
    ours, theirs = str(load_xgboost().__version__), card.versions.get("xgboost", "0")
    if _major(theirs) > _major(ours):
        raise ModelLoadError(
            f"the model {path} was written by XGBoost {theirs}, and {ours} is installed. A file of a newer major version may "
            "be misread; update xgboost, train again, or pass force=True to try it."
        )


def _major(version: str) -> int:
    first = version.split(".")[0]
    return int(first) if first.isdigit() else 0


def _check_catalogue(path: Path, card: ModelCard) -> None:
    """Refuse a model of the catalogue's features whose code or order has changed since."""
    if card.feature_set is None:
        return
    from qml_plugin.features.catalogue import CATALOGUE, difference

    if card.feature_set != CATALOGUE.feature_set:
        raise FeatureMismatch(
            f"the model {path} was trained {difference(card.features) or 'on another set of the same features'}. This version "
            "computes other features; train again, or pass force=True to score features of the old set."
        )


def _parsed(path: Path, content: bytes) -> xgboost.Booster:
    """XGBoost's own reading of the file."""
    library = load_xgboost()
    booster: xgboost.Booster = library.Booster({"nthread": 1})
    try:
        booster.load_model(bytearray(content))
        objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    # Damage also surfaces as UnicodeDecodeError, a ValueError, when XGBoost quotes the bytes it stumbled on.
    except (library.core.XGBoostError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelLoadError(
            f"the model {path} cannot be read by XGBoost: {reason}. Save the model again, or restore a copy."
        ) from error
    if objective != _OBJECTIVE:
        raise ModelLoadError(f"the model {path} has the objective {objective!r}. A confidence needs {_OBJECTIVE!r}.")
    # Names are compared with the card's, by us; XGBoost would compare them with those of an array, which has none.
    booster.feature_names = None
    return booster
