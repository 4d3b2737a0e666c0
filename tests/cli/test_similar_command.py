"""`qml similar`: a registered pattern, the bars of now, filters, a page; and nothing from after the question."""

from __future__ import annotations

import shutil

import pytest

from qml_plugin.cli.blocks import fan_lines
from qml_plugin.neighbours.answer import answers
from qml_plugin.neighbours.question import question_of
from qml_plugin.registry import PatternRegistry
from tests.cli.test_commands import is_refused, late_pattern, strict, words
from tests.neighbours.conftest import CHANGED_FROM
from tests.neighbours.test_answer import by_hand
from tests.registry.registry_samples import dump, execute
from tests.report.test_page import EVIL, Document
from tests.report.test_page import test_nothing_is_fetched_from_anywhere as check_nothing_is_fetched


@pytest.fixture
def both(two_markets, tmp_path):
    """URL of a copy of the registry of two markets."""
    return f"sqlite:///{shutil.copy(two_markets, tmp_path / 'both.db')}"


@pytest.fixture
def pattern_id(both):
    query = "SELECT pattern_id FROM ml_pattern_registry WHERE symbol = 'EURUSD' ORDER BY detection_time DESC LIMIT 1"
    return execute(both.removeprefix("sqlite:///"), query)[0][0]


def answer_of(said):
    code, out, err = said
    assert (code, err) == (0, "")
    (answer,) = strict(out)
    return answer


def neighbours_of(said):
    return answer_of(said)["neighbours"]


# A registered pattern


def test_it_lists_resolved_patterns_of_the_same_side(qml, url, database):
    pattern_id, side, known_at = late_pattern(database)
    rows = neighbours_of(qml("similar", pattern_id, "--db", url, "-n", 7, "--json"))
    assert len(rows) == 7
    distances = [row["distance"] for row in rows]
    assert distances == sorted(distances)
    for row in rows:
        assert row["pattern_id"] != pattern_id
        ((other_side, resolved_at, r_multiple),) = execute(
            database,
            "SELECT side, resolved_at, r_multiple FROM ml_pattern_registry WHERE pattern_id = ?",
            (row["pattern_id"],),
        )
        assert other_side == side
        assert resolved_at <= known_at
        assert row["r_multiple"] == r_multiple
        assert row["outcome"] == ("win" if r_multiple > 0 else "loss")
        assert (row["symbol"], row["timeframe"], row["strategy"]) == ("GOOG", "1d", "MovingAverageCross")


def test_it_is_what_the_run_saw_except_for_the_scaling(qml, url, database):
    """The command fits its scaler on all that is known, the run on its last epoch: most neighbours agree."""
    pattern_id, _, _ = late_pattern(database)
    rows = neighbours_of(qml("similar", pattern_id, "--db", url, "--json"))
    ((seen,),) = execute(database, "SELECT neighbours_json FROM run_decisions WHERE pattern_id = ?", (pattern_id,))
    assert sum(row["pattern_id"] in seen for row in rows) >= 5


def test_the_table_the_fan_and_the_sentences(qml, both, pattern_id):
    code, out, err = qml("similar", pattern_id, "--db", both, "-n", 8)
    data = answer_of(qml("similar", pattern_id, "--db", both, "-n", 8, "--json"))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"EURUSD 1h · {data['side']} · as of {data['as_of']}"
    assert lines[1].split() == ["distance", "when", "symbol", "timeframe", "strategy", "outcome", "R", "pattern_id"]
    for line, row in zip(lines[2:10], data["neighbours"], strict=True):
        assert line.split() == [
            f"{row['distance']:.3f}", *row["detection_time"].split(), row["symbol"], row["timeframe"], row["strategy"],
            row["outcome"], f"{row['r_multiple']:.2f}", row["pattern_id"],
        ]  # fmt: skip
    registry = PatternRegistry(both, create=False)
    (answer,) = answers(registry, [question_of(registry, pattern_id)], k=8)
    at = lines.index("prices after the entry in ATR, upwards in its favour, 50 bars")
    assert lines[at + 1 : at + 12] == fan_lines(answer.fan, 100, 11)
    assert lines[at + 12] == "█ median  ▒ 25 to 75 %  ░ 10 to 90 %"
    text = " ".join(out.split())
    n_wins = sum(row["outcome"] == "win" for row in data["neighbours"])
    share, low, high = (f"{100 * data[f'win_share{end}']:.1f} %" for end in ("", "_low", "_high"))
    assert f"{n_wins} of the 8 nearest won, {share} (95 % interval {low} to {high}). Mean " in text
    assert f"{data['n_eligible']} {data['side']} patterns were eligible" in text
    assert f"of all of them {100 * data['base_win_share']:.1f} % won." in text
    assert "This describes the past and foretells nothing" in text
    assert max(map(len, lines[10:])) <= 100


def test_the_first_pattern_has_no_past(qml, url, database):
    ((first,),) = execute(database, "SELECT pattern_id FROM ml_pattern_registry ORDER BY detection_time LIMIT 1")
    code, out, err = qml("similar", first, "--db", url)
    assert (code, err) == (0, "")
    assert out.removeprefix("No long ").removeprefix("No short ") == (
        "pattern that meets the filters had a known outcome then.\n"
    )
    answer = answer_of(qml("similar", first, "--db", url, "--json"))
    assert (answer["neighbours"], answer["n_eligible"], answer["win_share"]) == ([], 0, None)


def test_it_obeys_a_label_by_hand(qml, url, database):
    pattern_id, _, _ = late_pattern(database)
    nearest = neighbours_of(qml("similar", pattern_id, "--db", url, "--json"))[0]
    turned = "loss" if nearest["outcome"] == "win" else "win"
    change = "UPDATE ml_pattern_registry SET user_label = ? WHERE pattern_id = ?"
    execute(database, change, (turned, nearest["pattern_id"]))
    assert neighbours_of(qml("similar", pattern_id, "--db", url, "--json"))[0] == nearest | {"outcome": turned}
    execute(database, change, ("ignore", nearest["pattern_id"]))
    ids = [row["pattern_id"] for row in neighbours_of(qml("similar", pattern_id, "--db", url, "--json"))]
    assert nearest["pattern_id"] not in ids


def test_filters_come_before_the_choice(qml, both, pattern_id):
    def ask(*options):
        return answer_of(qml("similar", pattern_id, "--db", both, "--json", "-n", 5, *options))

    whole = ask()
    for options, name, value in (
        (("--symbol", "GOOG"), "symbol", "GOOG"),
        (("--timeframe", "60m"), "timeframe", "1h"),
        (("--strategy", "MovingAverageCross"), "strategy", "MovingAverageCross"),
        (("--pattern-type", f"{whole['side']}_signal"), "pattern_type", f"{whole['side']}_signal"),
    ):
        found = ask(*options)
        assert len(found["neighbours"]) == 5
        assert {row[name] for row in found["neighbours"]} == {value}
    assert ask("--symbol", "GOOG")["n_eligible"] + ask("--symbol", "EURUSD")["n_eligible"] == whole["n_eligible"]
    assert ask("--max-age", "10d")["n_eligible"] < ask("--symbol", "EURUSD")["n_eligible"]
    apart = ask("--apart-bars", "100")
    assert apart["n_eligible"] == whole["n_eligible"]
    assert apart["neighbours"] != whole["neighbours"]
    assert ask("--symbol", "NOTHING")["neighbours"] == []


def test_patterns_registered_by_hand_have_a_table_alone(qml, tmp_path):
    url = f"sqlite:///{tmp_path}/hand.db"
    registry = PatternRegistry(url)
    for n in range(4):
        registry.label_pattern(by_hand(registry, n), "win")
    last = by_hand(registry, 0, detection_time="2999-01-01 00:00")
    code, out, err = qml("similar", last, "--db", url, "--html", tmp_path / "hand.html")
    assert (code, err) == (0, "")
    assert "No bars around them are kept, so there is no picture of prices" in " ".join(out.split())
    assert "░" not in out
    assert [line.split()[-2] for line in out.splitlines()[2:6]] == ["–"] * 4
    found = Document((tmp_path / "hand.html").read_text())
    assert set(found.charts) == {"pattern-1"}
    assert "No bars around it are kept" in " ".join(found.text.split())
    assert neighbours_of(qml("similar", last, "--db", url, "--json"))[0]["r_multiple"] is None


# Now


def test_now_asks_for_both_sides(qml, both, goog, tmp_path):
    goog.iloc[:600].to_csv(tmp_path / "GOOG.csv")
    code, out, err = qml("similar", "--now", tmp_path / "GOOG.csv", "--db", both, "-n", 4)
    assert (code, err) == (0, "")
    long, short = out.index("GOOG 1d · long · as of 2007-01-06"), out.index("GOOG 1d · short · as of 2007-01-06")
    assert long < short
    found = strict(qml("similar", "--now", tmp_path / "GOOG.csv", "--db", both, "-n", 4, "--json")[1])
    assert [answer["side"] for answer in found] == ["long", "short"]
    for answer in found:
        assert len(answer["neighbours"]) == 4
        assert all(row["resolved_at"] <= answer["as_of"] for row in answer["neighbours"])
    (short_only,) = strict(
        qml("similar", "--now", tmp_path / "GOOG.csv", "--db", both, "-n", 4, "--json", "--side", "short")[1]
    )
    assert short_only == found[1]


def test_now_names_the_bars_and_their_timeframe(qml, both, eurusd, tmp_path):
    eurusd.iloc[:400].to_csv(tmp_path / "bars.csv")
    arguments = [
        "--now",
        tmp_path / "bars.csv",
        "--db",
        both,
        "--symbol",
        "EURUSD",
        "--timeframe",
        "1h",
        "--side",
        "long",
    ]
    answer = answer_of(qml("similar", *arguments, "--json"))
    assert (answer["symbol"], answer["timeframe"]) == ("EURUSD", "1h")
    assert {row["symbol"] for row in answer["neighbours"]} == {"EURUSD"}
    named = qml("similar", "--now", tmp_path / "bars.csv", "--db", both, "--side", "long", "--json")
    assert answer_of(named)["symbol"] == "bars"


# Another future


def test_another_future_changes_nothing_that_is_shown(qml, same_past, goog, tmp_path):
    until = goog.index[CHANGED_FROM]
    query = f"SELECT pattern_id FROM ml_pattern_registry WHERE detection_time < '{until}' ORDER BY detection_time DESC"
    asked = [execute(path, query)[0][0] for path in same_past]
    assert asked[0] == asked[1]
    goog.iloc[:CHANGED_FROM].to_csv(tmp_path / "now.csv")
    for question in ([asked[0]], ["--now", tmp_path / "now.csv"]):
        shown = []
        for path in same_past:
            out, page = tmp_path / "page.html", qml("similar", *question, "--db", f"sqlite:///{path}", "-n", 15)
            assert qml("similar", *question, "--db", f"sqlite:///{path}", "-n", 15, "--html", out)[0] == 0
            data = qml("similar", *question, "--db", f"sqlite:///{path}", "-n", 15, "--json", "--apart-bars", 3)
            shown.append((page, out.read_bytes(), data))
        assert shown[0] == shown[1]
        assert "░" in shown[0][0][1]


# The page


def test_the_page_holds_everything_and_fetches_nothing(qml, both, pattern_id, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = qml("similar", pattern_id, "--html", "--db", both)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"page  {tmp_path / 'similar.html'}"
    found = Document((tmp_path / "similar.html").read_text())
    check_nothing_is_fetched(found)
    assert set(found.charts) == {"pattern-1", "paths-1", "fan-1", "r-1"}
    text = " ".join(found.text.split())
    for row in neighbours_of(qml("similar", pattern_id, "--db", both, "--json")):
        assert row["pattern_id"] in text
    assert "describes the past and foretells nothing" in text


def test_the_file_of_the_page_may_stand_anywhere(qml, both, pattern_id, tmp_path, goog):
    goog.iloc[:300].to_csv(tmp_path / "now.csv")
    for i, arguments in enumerate(
        ([pattern_id, "--html", tmp_path / "0.html"], ["--html", tmp_path / "1.html", pattern_id],
         ["--now", tmp_path / "now.csv", "--html", tmp_path / "2.html"])
    ):  # fmt: skip
        assert qml("similar", *arguments, "--db", both)[0] == 0
        assert (tmp_path / f"{i}.html").exists()
    said = qml("similar", pattern_id, "--html", tmp_path / "3.html", "--json", "--db", both)
    assert said[0] == 0
    assert len(strict(said[1])) == 1
    assert said[2] == f"page  {tmp_path / '3.html'}\n"
    assert is_refused(
        qml("similar", pattern_id, "--html", tmp_path / "no" / "x.html", "--db", both), 1, "cannot be written"
    )


def test_names_from_outside_command_neither_terminal_nor_browser(qml, tmp_path):
    url = f"sqlite:///{tmp_path}/evil.db"
    registry = PatternRegistry(url)
    evil = {"symbol": EVIL, "pattern_type": EVIL, "strategy": EVIL}
    for n in range(3):
        registry.label_pattern(by_hand(registry, n, **evil), "win")
    last = by_hand(registry, 0, detection_time="2999-01-01 00:00", **evil)
    worse = "UPDATE ml_pattern_registry SET symbol = symbol || char(27) || '[2J', strategy = strategy || char(7)"
    execute(tmp_path / "evil.db", worse)
    code, out, _ = qml("similar", last, "--html", tmp_path / "evil.html", "--db", url)
    assert code == 0
    assert "\x1b" not in out
    assert "\x07" not in out
    html = (tmp_path / "evil.html").read_text()
    assert "<script>alert" not in html
    assert not any(tag == "a" for tag, _ in Document(html).tags)


# Refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one question at a time"),
        (["x", "y"], "one question at a time"),
        (["x", "--now", "bars.csv"], "one question at a time"),
        (["x.html"], "pattern 'x.html'"),
        (["a.html", "b.html", "--html"], "one question at a time"),
        (["x", "--side", "long"], "--side and --tz belong to --now"),
        (["x", "--tz", "UTC"], "--side and --tz belong to --now"),
        (["--now", "bars.csv", "--side", "up"], "--side is 'up'. It must be long or short"),
        (["x", "--max-age", "long"], "--max-age is 'long'. Write a count and a unit"),
        (["x", "-n", "0"], "-n"),
        (["x", "--apart-bars", "-1"], "--apart-bars"),
    ],
)
def test_contradictions_are_wrong_usage(qml, url, database, arguments, message):
    before = dump(database)
    code, out, err = qml("similar", "--db", url, *arguments)
    assert (code, out) == (1 if message.startswith("pattern") else 2, "")
    assert message in words(err)
    assert dump(database) == before


def test_what_does_not_exist_is_refused(qml, url, database, tmp_path):
    pattern_id, _, _ = late_pattern(database)
    assert is_refused(qml("similar", "no-such-id", "--db", url), 1, "pattern 'no-such-id' is not in ")
    assert is_refused(qml("similar", "--now", tmp_path / "no.csv", "--db", url), 1, "no.csv cannot be read")
    assert is_refused(qml("similar", pattern_id, "--timeframe", "5x", "--db", url), 1, "timeframe '5x' is not")
