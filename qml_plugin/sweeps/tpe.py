"""Points that a tree-structured Parzen estimator asks for, the same ones for any number of workers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from qml_plugin.errors import MissingExtra
from qml_plugin.sweeps.points import Grid, Places

# Points asked for before any of them is answered: a fixed number, so that the search does not depend on the workers.
GENERATION = 8
_MOST_REPEATS = 50


def suggestions(
    grid: Grid, n_points: int, seed: int, generation: int, value_of: Callable[[Places], float | None]
) -> Iterator[list[Places]]:
    """Generations of new places until there are `n_points`; `value_of` is asked for those of the generation before.

    Each place comes once. When the estimator repeats itself for long, what is left is drawn at random.

    Raises
    ------
    MissingExtra
        If Optuna is not installed.
    """
    optuna = _optuna()
    sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    allowed, tried = set(grid.places()), dict[Places, None]()
    failed = optuna.trial.TrialState.FAIL
    while len(tried) < n_points:
        asked: list[tuple[Any, Places]] = []
        fresh: list[Places] = []
        n_repeats = 0
        while len(fresh) < min(generation, n_points - len(tried)):
            trial = study.ask()
            places = tuple(_suggested(trial, grid))
            if places in allowed and places not in tried and places not in fresh:
                fresh.append(places)
                asked.append((trial, places))
                continue
            if places in tried and (value := value_of(places)) is not None:
                study.tell(trial, value)
            else:
                study.tell(trial, state=failed)
            n_repeats += 1
            if n_repeats > _MOST_REPEATS:
                left = [at for at in sorted(allowed) if at not in tried and at not in fresh]
                fresh += left[:: max(1, len(left) // (n_points - len(tried)))][: n_points - len(tried) - len(fresh)]
                break
        yield fresh
        tried |= dict.fromkeys(fresh)
        for trial, places in asked:
            value = value_of(places)
            if value is None or not math.isfinite(value):
                study.tell(trial, state=failed)
            else:
                study.tell(trial, value)


def _suggested(trial: Any, grid: Grid) -> Iterator[int]:
    for (name, tried), is_ordered in zip(grid.values.items(), grid.is_ordered, strict=True):
        if is_ordered:
            yield trial.suggest_int(name, 0, len(tried) - 1)
        else:
            yield trial.suggest_categorical(name, list(range(len(tried))))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra.for_module("optuna", "optuna") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
