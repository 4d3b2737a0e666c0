"""The bars that runs saw: kept once, given back bit for bit, refused when they are not what they were."""

from __future__ import annotations

import hashlib
import zlib

import pytest

from qml_plugin.errors import RegistryCorrupt
from qml_plugin.registry import checks
from qml_plugin.registry.maintenance import doctor
from tests.registry.registry_samples import HOUR, NAMES, START, execute, make_bars, make_pattern, run_on

EVERY_ENGINE = True


def keep(registry, bars, run_id="run-1", patterns=(), tz=None):
    registry.save_run(run_on(bars, run_id), list(patterns), [], {}, names=NAMES, bars=bars, tz=tz)


@pytest.mark.parametrize("tz", [None, "UTC", "America/New_York"])
def test_bars_come_back_bit_for_bit(registry, tz):
    bars = make_bars()
    keep(registry, bars, tz=tz)
    found, zone = registry.bars_under(bars.sha256())
    assert (found.symbol, found.timeframe, zone) == ("GOOG", "1h", tz)
    for name in ("opened_at", "known_at", "open", "high", "low", "close", "volume"):
        assert getattr(found, name).tobytes() == getattr(bars, name).tobytes()
    assert found.sha256() == bars.sha256()


def test_bars_are_kept_once_for_all_runs_on_them(registry, path):
    for number in range(3):
        keep(registry, make_bars(), f"run-{number}")
    keep(registry, make_bars(seed=2), "run-other")
    assert execute(path, "SELECT count(*) FROM bars") == [(2,)]


def test_a_series_that_is_too_long_is_not_kept(registry, path, monkeypatch):
    monkeypatch.setattr("qml_plugin.registry.kept_bars.MOST_BARS", 49)
    keep(registry, make_bars())
    assert execute(path, "SELECT count(*) FROM bars") == [(0,)]
    assert registry.bars_under(make_bars().sha256()) is None


def test_the_bars_of_a_pattern_are_the_longest_series_that_holds_its_bar(registry):
    short, long, elsewhere = make_bars(20), make_bars(50, seed=2), make_bars(60, symbol="SPY", seed=3)
    pattern, late = make_pattern(10), make_pattern(30)
    for number, bars in enumerate((short, long, elsewhere)):
        keep(registry, bars, f"run-{number}", [pattern, late])
    found, bar = registry.bars_of(pattern.pattern_id)
    assert (found.sha256(), bar) == (long.sha256(), 10)
    assert registry.bars_of(late.pattern_id)[1] == 30


def test_a_pattern_between_two_bars_or_outside_all_has_none(registry):
    between, outside = make_pattern(3, detection_at=START + HOUR // 2), make_pattern(99)
    keep(registry, make_bars(), patterns=[between, outside])
    assert registry.bars_of(between.pattern_id) is None
    assert registry.bars_of(outside.pattern_id) is None


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE bars SET sha256 = 'f'", "their sha256 is another"),
        ("UPDATE bars SET n_bars = 49", "are not the 49 bars"),
        ("UPDATE bars SET n_bars = 2000000000", "are not the 2000000000 bars"),
        ("UPDATE bars SET n_bars = -1", "are not the -1 bars"),
    ],
)
def test_bars_that_are_not_what_they_were_are_refused_and_found(registry, path, url, change, what):
    keep(registry, make_bars())
    execute(path, change)
    with pytest.raises(RegistryCorrupt, match=rf"the bars kept under .* {what}.*Delete that row"):
        registry.bars_under(make_bars().sha256())
    (finding,) = doctor(url, deep=True)["damages"]
    assert what in finding


def test_a_few_bytes_that_unpack_to_very_many_are_not_unpacked(registry, path):
    keep(registry, make_bars())
    bomb = zlib.compress(bytes(200_000_000), 9)
    execute(path, "UPDATE bars SET columns_zlib = ?, sha256 = ?", (bomb, hashlib.sha256(bomb).hexdigest()))
    assert len(checks.unpacked(bomb, 50)) == 50 * 56 + 1
    with pytest.raises(RegistryCorrupt, match="are not the 50 bars"):
        registry.bars_under(make_bars().sha256())


def test_bytes_that_are_not_packed_are_refused(registry, path):
    keep(registry, make_bars())
    execute(path, "UPDATE bars SET columns_zlib = ?, sha256 = ?", (b"junk", hashlib.sha256(b"junk").hexdigest()))
    with pytest.raises(RegistryCorrupt, match="are not the 50 bars"):
        registry.bars_under(make_bars().sha256())


def test_a_diff_that_is_not_what_it_was_is_found(registry, path, url):
    registry.save_run(run_on(make_bars(), git_diff="-a\n+b\n"), [], [], {}, names=NAMES)
    assert doctor(url, deep=True)["damages"] == []
    execute(path, "UPDATE git_diffs SET diff = 'x'")
    (finding,) = doctor(url, deep=True)["damages"]
    assert "is not the one that its sha256 was made of" in finding
