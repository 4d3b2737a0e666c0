"""What the demonstration promises, checked on one whole tour and its repetition."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from tests.registry.registry_samples import execute

pytestmark = pytest.mark.slow

MODES = {"record", "shadow", "gate"}
REASONS = {
    "record_only", "few_labels", "one_class", "no_skill", "no_gain", "novel", "stale_model", "confident", "would_skip", "unconvinced",
}  # fmt: skip


def database_of(row):
    return "synthetic.db" if row.is_synthetic else "experiments.db"


def stored(toured, row):
    """Decisions of one row of the table as (action, reason, confidence, number of neighbours), from its database."""
    symbol, timeframe = row.data.split()
    found = execute(
        toured.out / database_of(row),
        "SELECT d.action, d.reason, d.confidence, d.neighbours_json FROM run_decisions d "
        "JOIN experiments e USING (run_id) WHERE e.strategy_name = ? AND e.symbol = ? AND e.timeframe = ? "
        "AND json_extract(e.params_json, '$.qml.mode') = ?",
        (row.strategy, symbol, timeframe, row.mode),
    )
    return [(action, reason, confidence, len(json.loads(near or "[]"))) for action, reason, confidence, near in found]


def test_the_table_holds_every_run(toured):
    rows = toured.result.rows
    assert len(rows) == 15
    runs = {(row.strategy, row.data) for row in rows}
    assert runs == {
        *((strategy, data) for strategy in ("QMLStrategy", "MovingAverageCross") for data in ("GOOG 1d", "EURUSD 1h")),
        ("MovingAverageCross", "SYNTHETIC 1h"),
    }
    for strategy, data in runs:
        ours = [row for row in rows if (row.strategy, row.data) == (strategy, data)]
        assert {row.mode for row in ours} == MODES
        assert len({row.n_entries for row in ours}) <= 2, "modes differ in what is traded, hardly in what is entered"
        assert {row.is_synthetic for row in ours} == {data.startswith("SYNTHETIC")}


def test_progress_is_told(toured):
    done, total, texts = zip(*toured.steps, strict=True)
    assert list(done) == list(range(16))
    assert set(total) == {15}
    assert all(texts)


def test_enough_distinct_patterns_on_real_data(toured):
    database = toured.out / "experiments.db"
    ((n, n_ids, n_resolved),) = execute(
        database, "SELECT count(*), count(DISTINCT pattern_id), count(resolved_at) FROM ml_pattern_registry"
    )
    assert n == n_ids >= 150
    assert n_resolved > 0.9 * n
    assert {symbol for (symbol,) in execute(database, "SELECT DISTINCT symbol FROM ml_pattern_registry")} == {
        "GOOG",
        "EURUSD",
    }
    kinds = {kind for (kind,) in execute(database, "SELECT DISTINCT pattern_type FROM ml_pattern_registry")}
    assert len(kinds) >= 4, "long and short of both strategies"


def test_made_up_patterns_never_mix_with_real_ones(toured):
    symbols = execute(toured.out / "synthetic.db", "SELECT DISTINCT symbol FROM ml_pattern_registry")
    assert symbols == [("SYNTHETIC",)]
    real = {key for (key,) in execute(toured.out / "experiments.db", "SELECT pattern_id FROM ml_pattern_registry")}
    for (near,) in execute(toured.out / "experiments.db", "SELECT neighbours_json FROM run_decisions"):
        assert {neighbour_id(item) for item in json.loads(near or "[]")} <= real


def neighbour_id(item):
    return item["pattern_id"] if isinstance(item, dict) else item[0]


def test_the_databases_agree_with_the_table(toured):
    for row in toured.result.rows:
        decisions = stored(toured, row)
        assert len(decisions) == row.n_entries
        actions = Counter(action for action, *_ in decisions)
        assert (actions["take"], actions["skip"], actions["abstain"]) == (row.n_taken, row.n_skipped, row.n_abstained)
        assert row.n_taken + row.n_skipped + row.n_abstained == row.n_entries
        abstained = Counter(reason.split(":")[0] for action, reason, *_ in decisions if action == "abstain")
        assert row.main_reason == (abstained.most_common(1)[0][0] if abstained else None)


def test_every_decision_has_neighbours_or_a_reason(toured):
    for row in toured.result.rows:
        for action, reason, confidence, n_neighbours in stored(toured, row):
            assert reason.split(":")[0] in REASONS
            if row.mode == "record":
                assert (action, reason, confidence, n_neighbours) == ("take", "record_only", None, 0)
            else:
                assert n_neighbours > 0 or reason.startswith("few_labels")
                assert action != "skip" or row.mode == "gate"
                assert action == "abstain" or confidence is not None


def test_every_run_is_in_experiments(toured):
    for name, n_runs in (("experiments.db", 12), ("synthetic.db", 3)):
        runs = execute(toured.out / name, "SELECT run_id, status, metrics_json, finished_at FROM experiments")
        assert len(runs) == n_runs
        assert {status for _, status, _, _ in runs} == {"finished"}
        entries = {run_id: json.loads(metrics)["n_entries"] for run_id, _, metrics, _ in runs}
        counted = dict(execute(toured.out / name, "SELECT run_id, count(*) FROM run_decisions GROUP BY run_id"))
        assert counted == entries


def test_metrics_agree_with_the_table(toured):
    for row in toured.result.rows:
        symbol, timeframe = row.data.split()
        ((metrics,),) = execute(
            toured.out / database_of(row),
            "SELECT metrics_json FROM experiments WHERE strategy_name = ? AND symbol = ? AND timeframe = ? "
            "AND json_extract(params_json, '$.qml.mode') = ?",
            (row.strategy, symbol, timeframe, row.mode),
        )
        metrics = json.loads(metrics)
        assert metrics["return_frac"] == pytest.approx(row.return_frac)
        assert metrics["sharpe_annual"] == (None if row.sharpe_annual is None else pytest.approx(row.sharpe_annual))
        assert (metrics["n_entries"], metrics["n_skip"]) == (row.n_entries, row.n_skipped)


def test_recording_and_shadowing_trade_alike(toured):
    by_mode = {(row.strategy, row.data, row.mode): row for row in toured.result.rows}
    for (strategy, data, mode), row in by_mode.items():
        if mode == "shadow":
            recorded = by_mode[strategy, data, "record"]
            assert (row.return_frac, row.win_share, row.n_entries) == (
                recorded.return_frac,
                recorded.win_share,
                recorded.n_entries,
            )
            assert row.n_skipped == recorded.n_skipped == 0


def test_the_gate_works_where_an_edge_was_planted(toured):
    rows = {row.mode: row for row in toured.result.rows if row.is_synthetic}
    assert rows["gate"].n_skipped > 0
    assert rows["gate"].n_taken > 0
    assert rows["gate"].brier_skill > 0
    assert rows["gate"].return_frac > rows["shadow"].return_frac
    (sentence,) = [text for text in toured.result.findings if "Synthetic" in text]
    assert "planted on purpose" in sentence
    assert f"skipped {rows['gate'].n_skipped} of {rows['gate'].n_entries} entries" in sentence


def test_the_finding_on_real_data_is_honest(toured):
    gated = [row for row in toured.result.rows if row.mode == "gate" and not row.is_synthetic]
    n_entries, n_skipped = sum(row.n_entries for row in gated), sum(row.n_skipped for row in gated)
    first, second = [text for text in toured.result.findings if text.startswith("Real data: ")]
    assert f"registered {n_entries} entries" in first
    if n_skipped:
        assert f"skipped {n_skipped} of them" in second
    else:
        assert "no edge was shown" in second
        assert f"abstained on {sum(row.n_abstained for row in gated)} of {n_entries} entries" in second


# The page


class Page(HTMLParser):
    """Addresses that a page loads or links to, and the text of its table rows and sections."""

    def __init__(self, html):
        super().__init__()
        self.addresses, self.rows, self.inside = [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.addresses += [(tag, value) for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag == "tr":
            self.rows.append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "tr"

    def handle_data(self, data):
        if self.inside:
            self.rows[-1] += f" {data.strip()}"


def test_the_page_needs_nothing_beside_it(toured):
    page = Page(toured.page)
    assert all(value.startswith("#") for _, value in page.addresses)
    assert "@import" not in toured.page
    assert not re.search(r"url\(\s*['\"]?https?:", toured.page)
    assert toured.result.page == (toured.out / "demo.html").absolute()


def test_the_page_shows_every_run_and_labels_what_was_made_up(toured):
    table = [" ".join(row.split()) for row in Page(toured.page).rows]
    for row in toured.result.rows:
        (symbol, _) = row.data.split()
        ours = [text for text in table if row.strategy in text and symbol in text and row.mode in text.lower()]
        assert ours, row
        assert any(str(row.n_entries) in text for text in ours)
    assert any("Synthetic market with a planted edge" in text for text in table)
    plain = re.sub(r"\s+", " ", toured.page)
    assert len(re.findall("synthetic", plain, re.IGNORECASE)) > 5
    for finding in toured.result.findings:
        assert finding.split(".")[0].replace("'", "&#39;") in plain


def test_the_page_names_the_database(toured):
    assert toured.result.database == str((toured.out / "experiments.db").resolve())
    assert toured.result.database in toured.page


def test_nothing_else_is_left_in_the_folder(toured, repeated):
    assert repeated.files == ["demo.html", "experiments.db", "synthetic.db"]


# Once more into the same folder


def test_the_command_succeeds_and_prints_the_table(toured, repeated):
    assert repeated.returncode == 0, repeated.stderr
    assert repeated.stderr == ""
    lines = [re.sub(r"\(would \d+\)", "", line).split() for line in repeated.stdout.splitlines()]
    for row in toured.result.rows:
        wanted = [row.strategy, *row.data.split(), row.mode, *map(str, (row.n_entries, row.n_taken, row.n_skipped))]
        (line,) = [line for line in lines if line[:7] == wanted]
        assert line[7] == str(row.n_abstained)
        assert f"{100 * row.win_share:.1f}" in line
        assert f"{100 * row.return_frac + 0.0:.1f}".replace("-0.0", "0.0") in line
    for finding in toured.result.findings:
        assert f"- {finding}" in repeated.stdout
    assert f"database  {toured.result.database}" in repeated.stdout
    assert f"report    {toured.result.page}" in repeated.stdout


def test_a_second_tour_adds_no_rows(toured, repeated):
    for name, before in toured.tables.items():
        after = repeated.tables[name]
        assert {table: len(rows) for table, rows in after.items()} == {
            table: len(rows) for table, rows in before.items()
        }


def test_a_second_tour_decides_the_same(toured, repeated):
    """Action, confidence, neighbours and trade of every decision; of the gate's also the reason, the threshold and the bucket.

    In the second tour a shadow run knows the scores that the other strategies' entries got in the first.
    """
    for name, before in toured.tables.items():
        modes = dict(
            execute(toured.out / name, "SELECT run_id, json_extract(params_json, '$.qml.mode') FROM experiments")
        )
        names = column_names(toured, name, "run_decisions")
        kept = [i for i, column in enumerate(names) if column not in ("reason", "threshold", "bucket_json")]
        after = repeated.tables[name]["run_decisions"]
        for ours, theirs in zip(before["run_decisions"], after, strict=True):
            if modes[ours[0]] == "shadow":
                ours, theirs = ([row[i] for i in kept] for row in (ours, theirs))
            assert ours == theirs


def column_names(toured, name, table):
    return [column for _, column, *_ in execute(toured.out / name, f"PRAGMA table_info({table})")]


def columns(toured, name, table, skipped):
    """Positions of a table's columns, without some."""
    found = column_names(toured, name, table)
    assert set(skipped) <= set(found)
    return [i for i, column in enumerate(found) if column not in skipped]


def test_a_second_tour_repeats_the_runs(toured, repeated):
    for name, before in toured.tables.items():
        # Git, the clock and the scores of others may have moved on; nothing else may.
        skipped = {
            "started_at", "finished_at", "heartbeat_at", "pid", "process_started", "git_hash", "git_dirty",
            "git_diff_sha256", "snapshot_seq", "snapshot_sha256",
        }  # fmt: skip
        kept = columns(toured, name, "experiments", skipped)
        assert [[row[i] for i in kept] for row in repeated.tables[name]["experiments"]] == [
            [row[i] for i in kept] for row in before["experiments"]
        ]


def test_a_second_tour_keeps_patterns_and_outcomes(toured, repeated):
    for name, before in toured.tables.items():
        kept = columns(toured, name, "ml_pattern_registry", {"user_label"})
        assert [[row[i] for i in kept] for row in repeated.tables[name]["ml_pattern_registry"]] == [
            [row[i] for i in kept] for row in before["ml_pattern_registry"]
        ], "not even updated_at changes"


def test_labels_by_hand_survive(toured, repeated):
    assert len(repeated.labelled) == 5
    labels = dict(
        execute(
            toured.out / "experiments.db",
            "SELECT pattern_id, user_label FROM ml_pattern_registry WHERE user_label IS NOT NULL",
        )
    )
    assert labels == dict(repeated.labelled)


def test_nothing_is_written_anywhere_else(repeated):
    """Compiled kernels lie beside the package's modules; everything else goes into the folder."""
    assert repeated.elsewhere == []
