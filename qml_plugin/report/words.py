"""Numbers, times and reasons as a reader wants them."""

from __future__ import annotations

import math

from markupsafe import Markup

from qml_plugin.report.views import DecisionCard, EntryView

MINUS = "\u2212"
MISSING = Markup('<span class="missing" title="no such figure for this run">\u2013</span>')

_REASONS = {
    "few_labels": "too few labelled outcomes",
    "one_class": "too few outcomes of one kind",
    "no_skill": "no skill shown",
    "no_gain": "no gain shown",
    "novel": "like nothing seen before",
    "stale_model": "no outcome for too long",
    "deadline": "what was needed came too late",
    "feature_mismatch": "other features than the model's",
    "record_only": "recording only",
    "confident": "confident enough",
    "would_skip": "the gate would have skipped it",
    "unconvinced": "not confident enough",
}
_ACTIONS = {"take": "Taken", "skip": "Skipped", "abstain": "Taken, unjudged: the gate abstained"}
_MODELS = {
    "base_rate": "the base rate of past wins, which weighs no feature",
    "logistic": "logistic regression",
    "xgboost": "XGBoost",
}
_EXITS = {"target": "target reached", "stop": "stop hit", "time": "time limit reached"}


def is_missing(value: float | None) -> bool:
    """Whether there is no figure to print: None, NaN or infinite."""
    return value is None or not math.isfinite(value)


def number(value: float | None, decimals: int = 2, *, signed: bool = False, suffix: str = "") -> str:
    """A number with thousands separated and a true minus sign; an en dash with a title where there is none."""
    if value is None or is_missing(value):
        return MISSING
    text = f"{value:{'+' if signed else ''},.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS) + suffix


def p_value(value: float | None, decimals: int = 3) -> str:
    """A p; one that would read as zero is said to be less than the last digit."""
    if value is not None and not is_missing(value) and round(value, decimals) == 0:
        return f"<{10**-decimals:.{decimals}f}"
    return number(value, decimals)


def percent(value_frac: float | None, decimals: int = 1, *, signed: bool = False) -> str:
    """A fraction as percent."""
    scaled = None if value_frac is None else 100 * value_frac
    return number(scaled, decimals, signed=signed, suffix="\u202f%")


def reason(text: str | None) -> str:
    """A logged reason in words: the code before its colon is translated, an unknown one stays as it is."""
    if not text:
        return ""
    code, separator, detail = text.partition(":")
    return (
        _REASONS.get(code, code.replace("_", " "))
        + separator
        + detail.replace(">=", "\u2265").replace(" -", f" {MINUS}")
    )


def action(card: DecisionCard) -> str:
    """What was done with the entry."""
    return _ACTIONS.get(card.action, card.action)


def side(card: EntryView) -> str:
    """Direction of the entry."""
    return "long" if card.side > 0 else "short"


def outcome(card: EntryView) -> str:
    """How the entry ended under its label rule."""
    if card.exit_reason is None:
        return "The outcome was still open when the run ended."
    ended = _EXITS.get(card.exit_reason, card.exit_reason)
    if card.r_multiple is None or is_missing(card.r_multiple):
        return f"Outcome: {ended}."
    return f"Outcome: {ended}, a {win_word(card.r_multiple > 0)} of {number(card.r_multiple, signed=True)} R."


def win_word(is_win: bool) -> str:
    """The outcome's name."""
    return "win" if is_win else "loss"


def confidence(card: DecisionCard) -> str:
    """The confidence beside its threshold."""
    if card.confidence is None or is_missing(card.confidence):
        return "No model could speak yet, so there is no confidence."
    said = f"The confidence in a win was {percent(card.confidence)}"
    if card.confidence_low is not None and card.confidence_high is not None:
        said += f" (90\u202f% interval {percent(card.confidence_low)} to {percent(card.confidence_high)})"
    if card.threshold is None or is_missing(card.threshold):
        return f"{said}; there was no threshold to compare it with."
    relation = "at or above" if card.confidence >= card.threshold else "below"
    return f"{said}, {relation} the threshold of {percent(card.threshold)}."


def evidence(card: DecisionCard) -> str:
    """What past entries of a like confidence came to, and what was known; empty where nothing is recorded of it."""
    said = []
    if card.bucket is not None:
        bucket = card.bucket
        said.append(
            f"Of {number(bucket.n, 0)} past entries with a confidence of {percent(bucket.low)} to {percent(bucket.high)}, "
            f"{percent(bucket.win_frac)} won."
        )
    if card.base_rate is not None:
        said.append(f"Of all {number(card.n_known, 0)} outcomes known then, {percent(card.base_rate)} were wins.")
    if card.risk_frac is not None:
        said.append(f"{percent(card.risk_frac, 2)} of the equity was to be put at risk.")
    return " ".join(said)


def speaker(card: DecisionCard) -> str:
    """Which model gave the confidence, and what the contributions belong to."""
    if card.model is None:
        spoke = "No model gave a confidence for this entry."
    else:
        spoke = f"The confidence came from {_MODELS.get(card.model, card.model)}."
    return f"{spoke} The bars explain that model, before calibration." if card.contributions else spoke
