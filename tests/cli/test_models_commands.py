"""`qml train` and `qml models`: what they print, and what they say when they refuse."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from qml_plugin.cli import main
from tests.cli.test_commands import is_refused, strict, words
from tests.registry.registry_samples import dump, execute


def with_debug(*arguments):
    """With --debug the command line leaves warnings to Python."""
    with contextlib.suppress(SystemExit):
        main(["--debug", *arguments])


@pytest.fixture
def trained(qml, url):
    """Id of a model of the run's entries."""
    code, out, err = qml("train", "--db", url, "--json", "--notes", "of the <b>test</b>")
    assert (code, err) == (0, "")
    return strict(out)["model_id"]


def test_training_prints_the_figures_beside_the_base_rate(qml, url, database):
    code, out, err = qml("train", "--db", url, "--activate")
    assert (code, err) == (0, "")
    ((n_known,),) = execute(database, "SELECT count(barrier_outcome) FROM ml_pattern_registry")
    assert f"trained {n_known} results of MovingAverageCross on 1d" in words(out)
    assert "entries before that are refused" in out
    assert "Out of fold" in out
    assert "base rate" in out
    assert "Brier skill" in out
    assert ("do not rely on it" in out) == (strict(qml("models", "list", "--db", url, "--json")[1])["models"][0]["metrics"]["brier_skill"] <= 0)  # fmt: skip
    model_id = out.split("model     ")[1].split()[0]
    assert (Path(database).parent / "models" / f"{model_id}.ubj").is_file()
    listed = qml("models", "list", "--db", url)[1].splitlines()
    assert listed[1].split()[:4] == [model_id, "MovingAverageCross", "1d", "yes"]


def test_training_again_changes_nothing(qml, url, database, trained):
    before = dump(database)
    assert strict(qml("train", "--db", url, "--json")[1])["model_id"] == trained
    assert dump(database) == before


def test_notes_that_are_not_kept_are_told_of_and_the_active_model_is_called_so(qml, url, trained):
    code, out, err = qml("train", "--db", url, "--notes", "of the <b>test</b>")
    assert (code, err) == (0, "")
    assert f"qml models activate {trained}" in out
    with pytest.warns(
        RuntimeWarning, match="with the notes 'of the <b>test</b>': those stay, and the new ones were not kept"
    ):
        with_debug("train", "--db", url, "--notes", "others")
    qml("models", "activate", trained, "--db", url)
    out = qml("train", "--db", url)[1]
    assert f"model     {trained} (active)" in out
    assert "qml models activate" not in out
    assert strict(qml("train", "--db", url, "--json")[1])["active"] is True


def test_training_as_of_then_uses_what_was_known_then(qml, url, database, trained):
    (middle,) = execute(database, "SELECT resolved_at FROM ml_pattern_registry WHERE resolved_at IS NOT NULL ORDER BY resolved_at LIMIT 1 OFFSET 60")[0]  # fmt: skip
    told = strict(qml("train", "--db", url, "--json", "--as-of", middle, "--min-labels", 10)[1])
    assert told["model_id"] != trained
    ((n,),) = execute(database, "SELECT count(*) FROM ml_pattern_registry WHERE barrier_outcome IS NOT NULL AND resolved_at <= ?", (middle,))  # fmt: skip
    assert told["n_rows"] == n


def test_a_few_results_have_no_figures_and_it_says_so(qml, url, database):
    (early,) = execute(database, "SELECT resolved_at FROM ml_pattern_registry WHERE resolved_at IS NOT NULL ORDER BY resolved_at LIMIT 1 OFFSET 11")[0]  # fmt: skip
    code, out, err = qml("train", "--db", url, "--as-of", early, "--min-labels", 5)
    assert (code, err) == (0, "")
    assert "speaks    the base rate" in out
    assert "skill     not known" in out
    assert "qml models activate" in out
    assert "–" in qml("models", "list", "--db", url)[1]


def test_the_card_of_a_model(qml, url, trained):
    code, out, err = qml("models", "show", trained, "--db", url)
    assert (code, err) == (0, "")
    for name in (
        "model_id",
        "trained_through",
        "speaks",
        "metrics.brier_skill",
        "metrics.accuracy_base_rate",
        "sha256",
    ):
        assert name in out
    assert "of the <b>test</b>" in out
    told = strict(qml("models", "show", trained, "--db", url, "--json")[1])
    assert len(told["features"]) == told["n_features"] > 200
    assert told["model_id"] == trained


def test_activating_and_retiring(qml, url, database, trained):
    assert qml("models", "activate", trained, "--db", url) == (0, f"active    {trained}\n", "")
    assert execute(database, "SELECT model_id FROM ml_model_versions WHERE active") == [(trained,)]
    assert qml("models", "retire", trained, "--db", url) == (0, f"retired   {trained}\n", "")
    assert qml("models", "retire", trained, "--db", url) == (0, f"{trained} was not active\n", "")
    assert execute(database, "SELECT model_id FROM ml_model_versions WHERE active") == []


def test_what_is_refused_is_one_line(qml, url, database, trained):
    for command in ("show", "activate", "retire"):
        assert is_refused(
            qml("models", command, "../../etc/passwd", "--db", url), 1, "`qml models list` names those that are"
        )
    assert is_refused(qml("train", "--db", url, "--min-labels", 9999), 1, "are missing")
    assert is_refused(
        qml("train", "--db", url, "--strategy", "Nobody"), 1, "there are known results of MovingAverageCross"
    )
    assert is_refused(qml("train", "--db", url, "--as-of", "soon"), 1, "as_of is 'soon'")
    execute(database, "UPDATE ml_model_versions SET model_path = '../../../etc/passwd'")
    for command in ("show", "activate"):
        assert is_refused(qml("models", command, trained, "--db", url), 1, "leaves the folder of the registry")
    code, out, _ = qml("db", "doctor", "--deep", "--db", url)
    assert code == 0
    assert f"warning: model {trained}: the stored model_path '../../../etc/passwd' is refused" in out


def test_an_empty_list_names_the_way_to_a_model(qml, url):
    assert qml("models", "list", "--db", url) == (0, "There is no model. `qml train` makes one.\n", "")
    assert strict(qml("models", "list", "--db", url, "--json")[1]) == {"models": []}


@pytest.mark.parametrize(
    "command",
    [["train"], ["models", "list"], ["models", "show"], ["models", "activate"], ["models", "retire"]],
    ids=" ".join,
)
def test_help_shows_an_example(qml, command):
    assert "Example: qml" in words(qml(*command, "--help")[1])
