"""`qml label`: one pattern, lines of text, keys of a real terminal, real signals, a page."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qml_plugin.registry import PatternRegistry
from tests.cli.test_commands import QML, is_refused
from tests.registry.registry_samples import dump, execute, make_pattern, save
from tests.report.test_page import EVIL, Document
from tests.report.test_page import test_nothing_is_fetched_from_anywhere as check_nothing_is_fetched

ASKED = "[w]in [l]oss [i]gnore [s]kip [u]ndo [q]uit > "
OUTCOME = "result in percent, Enter for none > "
needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


def marks(database, n=5):
    """Label and outcome of the newest patterns."""
    query = "SELECT user_label, trade_outcome FROM ml_pattern_registry ORDER BY detection_time DESC, pattern_id LIMIT ?"
    return execute(database, query, (n,))


def but_times(database):
    """All patterns without the time of their last change."""
    names = [
        name for _, name, *_ in execute(database, "PRAGMA table_info(ml_pattern_registry)") if name != "updated_at"
    ]
    return execute(database, f"SELECT {', '.join(names)} FROM ml_pattern_registry ORDER BY pattern_id")


@pytest.fixture
def newest(database):
    query = "SELECT pattern_id FROM ml_pattern_registry ORDER BY detection_time DESC, pattern_id"
    return [row[0] for row in execute(database, query)]


@pytest.fixture
def answer(qml, monkeypatch, url):
    """Calls ``qml label`` with lines of text on stdin."""

    def call(text, *arguments):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        return qml("label", "--db", url, *arguments)

    return call


# One pattern without asking


def test_one_pattern_is_labelled_without_asking(qml, url, database, newest):
    said = qml("label", newest[0], "win", "--outcome", "-2.5", "--db", url)
    assert said == (0, f"{newest[0]} labelled win, outcome -2.5 % (before: none)\n", "")
    assert marks(database, 1) == [("win", -2.5)]
    assert qml("label", newest[0], "loss", "--db", url)[1] == f"{newest[0]} labelled loss (before: win)\n"
    assert marks(database, 1) == [("loss", -2.5)]
    assert qml("label", newest[0], "none", "--db", url)[0] == 0
    assert marks(database, 1)[0][0] is None


def test_the_first_characters_of_an_id_will_do(qml, url, database, newest):
    execute(
        database, "UPDATE ml_pattern_registry SET pattern_id = 'zz' || pattern_id WHERE pattern_id = ?", (newest[0],)
    )
    assert qml("label", "zz", "win", "--db", url)[1] == f"zz{newest[0]} labelled win (before: none)\n"
    assert marks(database, 1)[0][0] == "win"
    execute(database, "UPDATE ml_pattern_registry SET pattern_id = 'zz' WHERE pattern_id = ?", (newest[1],))
    assert qml("label", "zz", "loss", "--db", url)[1] == "zz labelled loss (before: none)\n"
    execute(database, "UPDATE ml_pattern_registry SET pattern_id = 'zz_%' WHERE pattern_id = 'zz'")
    before = dump(database)
    refused = qml("label", "zz", "loss", "--db", url)
    assert is_refused(refused, 1, "pattern 'zz' is not one pattern: zz")
    assert "Give more of the id" in refused[2]
    for unknown in ("zz%", "ZZ", "", "zz\n"):
        assert is_refused(qml("label", unknown, "loss", "--db", url), 1, " is not in ")
    assert dump(database) == before


def test_what_cannot_be_labelled_is_refused(qml, url, database, newest):
    before = dump(database)
    assert is_refused(qml("label", "no-such-id", "win", "--db", url), 1, "pattern 'no-such-id' is not in ")
    assert is_refused(qml("label", newest[0], "win", "--outcome", "nan", "--db", url), 1, "outcome is nan")
    assert is_refused(qml("label", "--timeframe", "5x", "--db", url), 1, "timeframe '5x' is not understood")
    assert dump(database) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "maybe"], "LABEL is 'maybe'. It must be win, loss or ignore"),
        (["--outcome", "1"], "--outcome needs PATTERN_ID and LABEL"),
        (["x", "win", "--outcome", "1", "--no-outcome"], "contradict each other"),
        (["--stats", "x"], "--stats stands alone"),
        (["--stats", "--html"], "--stats stands alone"),
        (["x", "y", "--html"], "--html takes one .html file"),
        (["x", "--html", "--outcome", "1"], "--outcome needs PATTERN_ID"),
        (["--limit", "0"], "--limit"),
    ],
)
def test_contradictions_are_wrong_usage(qml, url, database, arguments, message):
    before = dump(database)
    code, out, err = qml("label", "--db", url, *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())
    assert dump(database) == before


def test_statistics(qml, url):
    assert qml("label", "--stats", "--db", url) == qml("stats", "--db", url)


def test_a_missing_database_is_refused_and_not_made(qml, tmp_path):
    assert is_refused(qml("label", "--db", f"sqlite:///{tmp_path}/no.db"), 1, "there is no database")
    assert list(tmp_path.iterdir()) == []


# Lines of text


def test_answers_as_lines(answer, database):
    total = len(but_times(database))
    code, out, err = answer("w\n2.5\nl\n\nignore\nskip\nWIN\n+1.5%\n")
    assert (code, err) == (0, "")
    given = [("win", 2.5), ("loss", None), ("ignore", None), (None, None), ("win", 1.5)]
    kept = [outcome for _, outcome in marks(database)]
    assert [label for label, _ in marks(database)] == [label for label, _ in given]
    assert (kept[0], kept[4]) == (2.5, 1.5)
    assert out.count(ASKED) == 6
    assert out.splitlines()[-2] == f"4 labelled, {total - 4} left without a label"
    assert re.fullmatch(r"\d+ results are known, enough for get_training_data", out.splitlines()[-1])


def test_the_end_of_the_input_after_a_label_keeps_it(answer, database):
    assert answer("w\n")[0] == 0
    assert marks(database, 2)[0][0] == "win"
    assert marks(database, 2)[1][0] is None


def test_an_undo_puts_everything_back(answer, database):
    before = but_times(database)
    code, out, _ = answer("w\n2.5\nl\nu\nu\nu\ns\nu\nq\n")
    assert code == 0
    assert out.count("undone") == 3
    assert "There is nothing to undo." in out
    assert but_times(database) == before
    assert "0 labelled" in out


def test_without_outcomes(answer, database):
    assert answer("w\nl\ni\nl\n", "--no-outcome")[0] == 0
    assert [label for label, _ in marks(database)] == ["win", "loss", "ignore", "loss", None]


@pytest.mark.parametrize(("text", "line", "stored"), [
    ("w\n2.5\nx\nl\n1\n", "line 3 of the answers is 'x'. It must be one of w, l, i, s, u, q", ["win", None]),
    ("w\nl\nw\n", "line 2 of the answers is 'l'. It must be a number of percent", ["win", None]),
    ("w\nnan\n", "line 2 of the answers is 'nan'", ["win", None]),
    ("w\n1\n\n", "line 3 of the answers is ''", ["win", None]),
])  # fmt: skip
def test_a_line_that_is_no_answer_is_refused_by_its_number(answer, database, text, line, stored):
    code, out, err = answer(text)
    assert code == 1
    assert line in err
    assert "The answers before it are stored." in err
    assert "1 labelled" in out
    assert [label for label, _ in marks(database, 2)] == stored


def test_more_answers_than_patterns(answer, database):
    code, out, err = answer("w\nu\nl\nw\n", "--no-outcome", "--limit", "1")
    assert code == 1
    assert "line 4 of the answers is 'w'. It must be one of u, q." in err
    assert "No more to show. [u]ndo [q]uit > " in out
    assert marks(database, 2) == [("loss", marks(database, 1)[0][1]), (None, marks(database, 2)[1][1])]


def test_only_what_was_asked_for_is_shown(answer, url, database, newest):
    save(PatternRegistry(url), [make_pattern(3, symbol="AAPL", timeframe="4h")])
    code, out, _ = answer("w\n", "--symbol", "AAPL", "--timeframe", "240m", "--no-outcome")
    assert code == 0
    assert "1 of 1" in out
    assert "AAPL 4h · long · long_signal · Cross" in out
    assert "No bars around it are kept here" in out
    assert "1 labelled, 0 of AAPL 240m left without a label" in out
    code, out, err = answer("", "--symbol", "AAPL")
    assert (code, err) == (0, "")
    assert out.startswith("0 labelled, 0 of AAPL left")
    assert ASKED in answer("q\n", newest[3])[1]


def test_what_is_missing_for_training_is_told(qml, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/few.db"
    save(PatternRegistry(url), [make_pattern(3)])
    monkeypatch.setattr(sys, "stdin", io.StringIO("s\n"))
    assert "30 more results are needed for get_training_data, 0 are known" in qml("label", "--db", url)[1]


def test_the_future_is_shown_unless_it_is_hidden(answer):
    shown, hidden = answer("q\n")[1], answer("q\n", "--hide-future")[1]
    assert "┊" in shown
    assert "◆ Outcome" in answer("s\ns\nq\n")[1]
    assert not set("┊◆") & set(hidden)
    assert "Outcome" not in hidden
    assert "What came after the decision is hidden." in hidden


def test_bars_from_a_file(answer, url, database, goog, tmp_path):
    execute(database, "DELETE FROM bars")
    code, out, _ = answer("q\n")
    assert code == 0
    assert "No bars around it are kept here" in out
    goog.to_csv(tmp_path / "goog.csv")
    code, out, _ = answer("q\n", "--data", tmp_path / "goog.csv")
    assert code == 0
    assert "No bars" not in out
    assert "┊" in out
    save(PatternRegistry(url), [make_pattern(3, symbol="AAPL", timeframe="4h")])
    refused = answer("q\n", "--data", tmp_path / "goog.csv", "--limit", "200")
    assert is_refused(refused, 1, "of 2 markets (AAPL 4h, GOOG 1d)")


def test_texts_of_others_do_not_command_the_terminal(answer, url, database):
    execute(database, "DELETE FROM run_decisions")
    execute(database, "DELETE FROM ml_pattern_registry")
    evil = "\x1b]0;owned\x07\x1b[2J" + EVIL
    save(PatternRegistry(url), [make_pattern(3, symbol=evil, strategy=evil, pattern_type=evil)])
    code, out, _ = answer("w\n", "--no-outcome")
    assert code == 0
    assert "\x1b" not in out
    assert "\x07" not in out


# As a program of its own: pipes, terminals, signals


def started(url, *arguments, **options):
    command = [QML, "label", "--db", url, *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "90", "LINES": "40"}
    return subprocess.Popen(command, env=environment, **options)


def test_a_pipe(url, database):
    process = started(url, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate("w\n2.5\nl\n", timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "2 labelled" in out
    assert [label for label, _ in marks(database, 3)] == ["win", "loss", None]
    assert marks(database, 1) == [("win", 2.5)]


def test_stdin_that_is_closed_labels_nothing(url, database):
    before = but_times(database)
    command = f"exec {shlex.quote(str(QML))} label --db {shlex.quote(url)} <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 labelled" in done.stdout
    assert but_times(database) == before


class Terminal:
    """A ``qml label`` that talks to a pseudo-terminal."""

    def __init__(self, url, *arguments):
        import pty

        self.master, self.slave = pty.openpty()
        self.modes = self._modes()
        ends = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave}
        self.process = started(url, *arguments, **ends, start_new_session=True, preexec_fn=self._take_control)
        self.seen = ""

    @staticmethod
    def _take_control():
        """Make the terminal the one that Ctrl-C is typed on."""
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def _modes(self):
        import termios

        return termios.tcgetattr(self.slave)

    def expect(self, text, timeout=60):
        """Read until a text appears; what comes after it is for the next time."""
        until = time.monotonic() + timeout
        while text not in self.seen:
            left = until - time.monotonic()
            assert left > 0, f"{text!r} did not appear in {self.seen[-2000:]!r}"
            assert self.process.poll() is None or select.select([self.master], [], [], 0)[0], (
                f"it ended: {self.seen[-2000:]!r}"
            )
            if select.select([self.master], [], [], min(left, 0.2))[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, keys):
        os.write(self.master, keys.encode())

    def end(self):
        """Exit code, and whether the terminal is as it was."""
        code = self.process.wait(timeout=120)
        while select.select([self.master], [], [], 0.1)[0]:
            self.seen += os.read(self.master, 65536).decode(errors="replace")
        return code, self._modes() == self.modes

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=60)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(url):
    if sys.platform == "win32":
        pytest.skip("needs a pseudo-terminal")
    opened = []

    def open_one(*arguments):
        opened.append(Terminal(url, *arguments))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def test_a_single_key_answers(terminal, database):
    screen = terminal()
    shown = screen.expect(ASKED)
    assert "1 of 20" in shown
    assert "GOOG 1d" in shown
    assert max(len(line.rstrip("\r")) for line in shown.split("\n")) <= 90
    screen.type("w")
    screen.expect("win\r\n" + OUTCOME)
    assert marks(database, 1)[0][0] == "win", "stored before the outcome is asked for"
    screen.type("many\n")
    screen.expect("That is not a number of percent")
    screen.expect(OUTCOME)
    screen.type("2.5\n")
    screen.expect(ASKED)
    assert marks(database, 1) == [("win", 2.5)]
    screen.type("x")
    screen.expect(ASKED)
    screen.type("\x1b[D\x1bOS")
    screen.type("i")
    screen.expect("ignore")
    screen.expect(ASKED)
    assert [label for label, _ in marks(database, 3)] == ["win", "ignore", None]
    screen.type("u")
    screen.expect("undone")
    screen.expect("2 of 20")
    screen.expect(ASKED)
    screen.type("q")
    screen.expect("1 labelled")
    assert screen.end() == (0, True)
    assert [label for label, _ in marks(database, 3)] == ["win", None, None]


def test_answers_typed_ahead_are_all_taken(terminal, database):
    screen = terminal()
    screen.expect(ASKED)
    screen.type("w2.5\nl-1\nsi\x04")
    screen.expect("3 labelled")
    assert screen.end() == (0, True)
    assert [label for label, _ in marks(database, 4)] == ["win", "loss", None, "ignore"]
    assert [outcome for _, outcome in marks(database, 2)] == [2.5, -1.0]


def test_an_outcome_is_taken_back_with_its_label(terminal, database):
    before = but_times(database)
    screen = terminal()
    screen.expect(ASKED)
    screen.type("l")
    screen.expect(OUTCOME)
    screen.type("u\n")
    screen.expect("undone")
    screen.expect("1 of 20")
    screen.expect(ASKED)
    screen.type("\x04")
    screen.expect("0 labelled")
    assert screen.end() == (0, True)
    assert but_times(database) == before


@pytest.mark.parametrize(("stop", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_it_with_every_answer_stored(terminal, database, stop, code):
    screen = terminal()
    screen.expect(ASKED)
    screen.type("w")
    screen.expect(OUTCOME)
    screen.type("1\n")
    screen.expect(ASKED)
    screen.type("l")
    screen.expect(OUTCOME)
    screen.process.send_signal(getattr(signal, stop))
    screen.expect("2 labelled")
    assert screen.end() == (code, True)
    assert [label for label, _ in marks(database, 3)] == ["win", "loss", None]


def test_ctrl_c_is_the_signal(terminal, database):
    screen = terminal("--no-outcome")
    screen.expect(ASKED)
    screen.type("w")
    screen.expect(ASKED)
    screen.type("\x03")
    screen.expect("1 labelled")
    assert screen.end() == (130, True)
    assert [label for label, _ in marks(database, 2)] == ["win", None]


def test_a_signal_waits_for_the_answer_that_is_being_stored(terminal, database):
    screen = terminal("--no-outcome")
    screen.expect(ASKED)
    holder = sqlite3.connect(database, isolation_level=None)
    with contextlib.closing(holder):
        holder.execute("BEGIN IMMEDIATE")
        screen.type("w")
        time.sleep(0.5)  # until the answer waits for the lock
        screen.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert screen.process.poll() is None
        holder.execute("ROLLBACK")
    screen.expect("1 labelled")
    assert screen.end() == (130, True)
    assert [label for label, _ in marks(database, 2)] == ["win", None]


def test_kill_loses_no_answer_that_was_acknowledged(terminal, database):
    screen = terminal("--no-outcome")
    for n_answered in range(4):
        screen.expect(ASKED)
        assert [label for label, _ in marks(database, 5)] == ["win"] * n_answered + [None] * (5 - n_answered)
        screen.type("w")
    screen.expect("win\r\n")
    screen.process.kill()
    assert screen.process.wait(timeout=60) == -signal.SIGKILL
    assert [label for label, _ in marks(database, 5)] == ["win"] * 4 + [None]
    assert execute(database, "PRAGMA integrity_check") == [("ok",)]


def test_a_terminal_that_is_closed_loses_nothing(terminal, database):
    screen = terminal("--no-outcome")
    screen.expect(ASKED)
    screen.type("l")
    screen.expect("loss\r\n")
    os.close(screen.slave)
    os.close(screen.master)
    screen.process.wait(timeout=120)
    assert [label for label, _ in marks(database, 2)] == ["loss", None]
    screen.master, screen.slave = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_RDONLY)


# The page


def test_a_page_of_charts(qml, url, newest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = qml("label", "--html", "charts.html", "--limit", 3, "--db", url)
    assert (code, out, err) == (0, f"page  {tmp_path}/charts.html\n", "")
    found = Document((tmp_path / "charts.html").read_text())
    check_nothing_is_fetched(Document((tmp_path / "charts.html").read_text().replace(url, "").replace("sqlite:", "")))
    assert set(found.charts) == {"pattern-1", "pattern-2", "pattern-3"}
    for pattern_id in newest[:3]:
        assert f"qml label {pattern_id} LABEL --db {url}" in found.text
    assert newest[3] not in found.text


def test_the_page_of_one_pattern_and_the_default_name(qml, url, newest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert qml("label", "--html", newest[5], "--db", url)[1] == f"page  {tmp_path}/labels.html\n"
    text = Document(Path("labels.html").read_text()).text
    assert newest[5] in text
    assert newest[0] not in text


def test_a_page_that_cannot_be_written_or_would_be_empty_is_refused(qml, url, tmp_path):
    assert is_refused(qml("label", "--html", tmp_path / "no" / "p.html", "--db", url), 1, "cannot be written")
    refused = qml("label", "--html", tmp_path / "p.html", "--symbol", "NONE", "--db", url)
    assert is_refused(refused, 1, "no pattern is without a label here")
    assert not (tmp_path / "p.html").exists()
