"""The commands about frozen models. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qml_plugin.cli.terminal import DEFAULT_DB, AsJson, Db, number, percent, print_mapping, print_table, say

if TYPE_CHECKING:
    from qml_plugin.model_files import ModelCard

models_app = typer.Typer(no_args_is_help=True, help="Frozen models: files of the registry, one active per strategy.")

ModelId = Annotated[str, typer.Argument(metavar="MODEL_ID", help="Id of a model, as the command list prints it.")]


@models_app.command("list")
def models_list(
    db: Db = DEFAULT_DB,
    strategy: Annotated[str | None, typer.Option(help="Only models of this strategy.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Only models of this timeframe.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the registered models, newest first, with their out-of-fold figures.

    Example: `qml models list --strategy MovingAverageCross`
    """
    from qml_plugin.registry import PatternRegistry

    models = PatternRegistry(db, create=False).get_models(strategy, timeframe)
    if as_json:
        print_mapping({"models": [_without_nan(model) for model in models]}, as_json)
    elif not models:
        say("There is no model. `qml train` makes one.")
    else:
        print_table(
            ("model_id", "strategy", "timeframe", "active", "trained through", "Brier skill", "accuracy", "always the usual"),
            ([model["model_id"], model["strategy"], model["timeframe"], "yes" if model["active"] else "no",
              model["trained_through"], number(_metric(model, "brier_skill"), 3), percent(_metric(model, "accuracy")),
              percent(_metric(model, "accuracy_base_rate"))] for model in models),
        )  # fmt: skip


@models_app.command("show")
def models_show(model_id: ModelId, db: Db = DEFAULT_DB, as_json: AsJson = False) -> None:
    """Print the card of a model: what it was trained on, its figures, its file and the libraries that made it.

    Example: `qml models show MODEL_ID --json`
    """
    from qml_plugin.registry import PatternRegistry

    model = PatternRegistry(db, create=False).get_model(model_id)
    card: ModelCard = model.pop("card")
    facts = {name: model[name] for name in ("model_id", "strategy", "timeframe", "active", "notes", "trained_time", "trained_through")}  # fmt: skip
    names = ("speaks", "n_rows", "n_wins", "effective_labels", "base_rate", "slope", "intercept", "seed", "feature_set", "sha256")  # fmt: skip
    facts |= {name: getattr(card, name) for name in names}
    facts |= {"file": str(model["path"]), "n_features": len(card.features), "metrics": dict(card.metrics)}
    facts["versions"] = dict(card.versions)
    if as_json:
        facts["features"] = dict(card.features)
    print_mapping(_without_nan(facts), as_json)


@models_app.command("activate")
def models_activate(model_id: ModelId, db: Db = DEFAULT_DB) -> None:
    """Make a model the active one of its strategy and timeframe; the one before is retired in the same step.

    Its file is checked first. Example: `qml models activate MODEL_ID`
    """
    from qml_plugin.registry import PatternRegistry

    PatternRegistry(db, create=False).activate_model(model_id)
    say(f"active    {model_id}")


@models_app.command("retire")
def models_retire(model_id: ModelId, db: Db = DEFAULT_DB) -> None:
    """Take a model out of use; its row and its file stay.

    Example: `qml models retire MODEL_ID`
    """
    from qml_plugin.registry import PatternRegistry

    was_active = PatternRegistry(db, create=False).retire_model(model_id)
    say(f"retired   {model_id}" if was_active else f"{model_id} was not active")


def train(
    db: Db = DEFAULT_DB,
    strategy: Annotated[str | None, typer.Option(help="Whose entries; needed where there are several.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Of which timeframe; needed where there are several.")] = None,
    min_labels: Annotated[int, typer.Option(min=1, help="Refuse to train on fewer known results.")] = 30,
    as_of: Annotated[str | None, typer.Option(metavar="TIME", help="Use only results known then, in UTC.")] = None,
    activate: Annotated[bool, typer.Option("--activate", help="Make it the active model of its strategy.")] = False,
    notes: Annotated[str | None, typer.Option(help="Text to keep with the model.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampling inside XGBoost.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train a model on the registry's known results, register it, and say how good it was out of fold.

    Example: `qml train --strategy MovingAverageCross --timeframe 1d --as-of 2012-01-01 --activate`
    """
    import tempfile
    from pathlib import Path

    from qml_plugin.gate.training import train_on_registry
    from qml_plugin.registry import PatternRegistry

    registry = PatternRegistry(db, create=False)
    predictor, strategy, timeframe = train_on_registry(
        registry, strategy=strategy, timeframe=timeframe, min_labels=min_labels, as_of=as_of, seed=seed
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.ubj"
        card = predictor.save(file)
        model_id = registry.register_model(file, card, strategy=strategy, timeframe=timeframe, notes=notes)
    if activate:
        registry.activate_model(model_id)
    is_active = registry.get_model(model_id)["active"]
    if as_json:
        facts = {"model_id": model_id, "strategy": strategy, "timeframe": timeframe, "active": is_active}
        facts |= {name: getattr(card, name) for name in ("speaks", "n_rows", "n_wins", "effective_labels", "base_rate")}
        print_mapping(_without_nan(facts | {"metrics": dict(card.metrics)}), as_json)
        return
    _print_training(card, strategy, timeframe)
    say(f"\nmodel     {model_id}{' (active)' if is_active else ''}")
    if not is_active:
        say(f"next      qml models activate {model_id} --db {db}")


def _print_training(card: ModelCard, strategy: str, timeframe: str) -> None:
    """The figures, each beside that of the base rate."""
    from qml_plugin.clock import isoformat

    say(f"trained   {card.n_rows:,} results of {strategy} on {timeframe}, {number(card.effective_labels, 0)} effective, {percent(card.base_rate)} wins")  # fmt: skip
    say(f"through   {isoformat(card.trained_through)} UTC: entries before that are refused")
    if card.speaks == "base_rate":
        say("speaks    the base rate: scores did not rise with the outcomes, or there were too few to tell")
    metrics = card.metrics
    if not metrics["n_scored"]:
        say("skill     not known: there are too few results to score any out of fold")
        return
    say(f"\nOut of fold, {metrics['n_scored']:,.0f} entries scored by what was known before them:")
    print_table(
        ("", "model", "base rate"),
        [
            ("Brier score (less is better)", number(metrics["brier"], 4), number(metrics["brier_base_rate"], 4)),
            ("accuracy", percent(metrics["accuracy"]), percent(metrics["accuracy_base_rate"])),
            ("AUC", number(_finite(metrics["auc"]), 3), "0.500"),
        ],
    )
    skill = metrics["brier_skill"]
    verdict = (
        "it did better than the base rate" if skill > 0 else "it did no better than the base rate: do not rely on it"
    )
    say(f"Brier skill {number(_finite(skill), 3)}: {verdict}")


def _metric(model: dict[str, Any], name: str) -> float | None:
    return (model["metrics"] or {}).get(name)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _without_nan(values: Any) -> Any:
    """The values with None for NaN, which JSON lacks."""
    if isinstance(values, dict):
        return {name: _without_nan(value) for name, value in values.items()}
    return None if isinstance(values, float) and not math.isfinite(values) else values
