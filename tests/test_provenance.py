"""Runs are told apart by what determines them, and by nothing else."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import subprocess
import sys
import threading
import uuid
from importlib import metadata
from pathlib import Path
from types import FunctionType

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qml_plugin import provenance
from qml_plugin.errors import DataError
from qml_plugin.provenance import (
    GitState,
    canonical_json,
    find_class,
    git_state,
    library_versions,
    plain,
    run_id,
    source_folder,
    source_sha256,
)
from qml_plugin.records import BarrierRule

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcäß", max_size=4), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def no_memory():
    """The module caches what git says; each test asks anew."""
    git_state.cache_clear()
    yield
    git_state.cache_clear()


@pytest.fixture
def repository(tmp_path):
    """A folder with one commit; returns a function that runs git in it."""

    def git(*arguments):
        options = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *options, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "code.py").write_text("a = 1\n")
    git("add", "code.py")
    git("commit", "-q", "-m", "one")
    return git


# Identity


@settings(max_examples=50)
@given(value=st.dictionaries(st.text("abc", max_size=3), VALUES, max_size=5))
def test_order_of_keys_does_not_matter(value):
    turned = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(turned)
    assert run_id(value) == run_id(turned)
    assert json.loads(canonical_json(value)) == value


def test_a_run_id_is_a_uuid_of_everything_in_order():
    assert uuid.UUID(run_id("a", "b")).version == 5
    ids = [run_id(*given) for given in (("a", "b"), ("b", "a"), ("ab",), ("a", "b", None), ("a", ["b"]), (["a", "b"],))]
    assert len(set(ids)) == len(ids)
    assert len({run_id(value) for value in (1, True, "1", 1.5, None)}) == 5


def test_a_run_id_is_the_same_in_every_process():
    code = "from qml_plugin.provenance import run_id; print(run_id('Cross', {'slow': 30, 'fast': 10.5, 'c': {'x', }}))"
    done = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert done[0].stdout.strip() == done[1].stdout.strip() == run_id("Cross", {"fast": 10.5, "slow": 30, "c": {"x"}})


def test_values_that_json_lacks_are_written_all_the_same():
    assert canonical_json({"rule": 1 + 2j}) == b'{"rule":"(1+2j)"}'
    assert canonical_json({"n": np.int64(3), "x": np.float64(0.5), "a": np.arange(3)}) == b'{"a":[0,1,2],"n":3,"x":0.5}'
    assert canonical_json({2: "b", 10: "a"}) == b'{"10":"a","2":"b"}'
    assert run_id(BarrierRule(max_bars=5)) != run_id(BarrierRule(max_bars=6))


@settings(max_examples=50)
@given(value=VALUES)
def test_plain_leaves_json_alone(value):
    assert plain(value) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**70, str(2**70)),
        (-(2**63), -(2**63)),
        ({(1, 2): "pair"}, {"[1, 2]": "pair"}),
        ((1, (2, None)), [1, [2, None]]),
        (np.float32(0.5), 0.5),
        ("\ud800", "\\ud800"),
        (1 + 2j, "(1+2j)"),
    ],
    ids=str,
)
def test_nothing_is_refused(value, expected):
    assert plain(value) == expected
    assert json.loads(canonical_json(plain(value))) == expected


PLAIN = "from qml_plugin.provenance import plain; x = [object() for _ in range({n})]; print(plain({value}))"


def in_other_processes(value):
    """What `plain` makes of an expression in processes with other addresses and other hashes."""
    return {
        subprocess.run(
            [sys.executable, "-c", PLAIN.format(n=n, value=value)],
            capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": str(n)},
        ).stdout
        for n in (1, 5_000, 200_000)
    }  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        "lambda: 0",
        "object()",
        "[print, {'f': len}]",
        pytest.param(
            "{'alpha', 'beta', 'gamma', 'delta'}",
        ),
        pytest.param(
            "lambda x: x in {'alpha', 'beta', 'gamma', 'delta'}",
        ),
    ],
)
def test_a_value_is_the_same_in_every_process(value):
    assert len(in_other_processes(value)) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x: abs(x), lambda x: max(x)),
        pytest.param(
            lambda x, k=1: x * k,
            lambda x, k=2: x * k,
        ),
        pytest.param(
            np.arange(2_000),
            np.where(np.arange(2_000) == 1_000, 0, np.arange(2_000)),
        ),
    ],
    ids=["constants", "names", "defaults", "long arrays"],
)
def test_two_values_differ(one, other):
    assert plain(one) != plain(other)


def test_two_closures_differ():
    def threshold(level):
        return lambda x: x > level

    assert plain(threshold(1)) != plain(threshold(2))


LEVEL = 1


def above(x):
    return x > LEVEL


class Sharp:
    def __init__(self, level):
        self.level = level

    def above(self, x):
        return x > self.level

    __call__ = above


def reading(**read):
    """A function that reads these as globals, one within another of its own."""
    return FunctionType((lambda x: [above(x) for _ in range(2)]).__code__, {"range": range, **read})


def test_what_a_function_reads_is_a_part_of_it(monkeypatch):
    def calls(x):
        return [above(x) for _ in range(2)]

    before = plain(calls)
    assert plain(calls) == before
    monkeypatch.setitem(globals(), "LEVEL", 2)
    assert plain(calls) != before
    monkeypatch.setitem(globals(), "LEVEL", 1)
    assert plain(calls) == before
    ways = [
        above,
        len,
        Sharp,
        Sharp(1),
        Sharp(1).above,
        functools.partial(above, 1),
        re.compile("a"),
        np,
        [above, {1: np.mean}],
    ]
    ways += [Sharp(2), Sharp(2).above, functools.partial(above, 2), re.compile("b"), math, [above, {1: np.sum}]]
    assert len({plain(reading(above=value)) for value in ways}) == len(ways)
    assert plain(reading(above=Sharp([1, {2}]))) == plain(reading(above=Sharp([1, {2}])))
    assert len({plain(value) for value in (Sharp(1), Sharp(2), Sharp(1).above, Sharp(2).above)}) == 4


def test_a_function_may_read_itself_and_what_has_no_value_yet():
    def again(x):
        return again(x - 1) if x > later else x

    before = plain(again)
    later = 1
    assert plain(again) != before


def test_a_function_that_reads_what_cannot_be_told_apart_is_refused():
    with pytest.raises(
        DataError, match=r"<lambda> reads 'above', a lock, of which nothing tells one state from another"
    ):
        plain(reading(above=[threading.Lock()]))


class Unwilling:
    def __reduce_ex__(self, protocol):
        raise ValueError("not to be had")


@pytest.mark.parametrize("held", [threading.Lock(), [Unwilling()]])
def test_what_a_function_encloses_is_refused_in_the_same_way(held):
    def holds():
        return held

    with pytest.raises(DataError, match=r"holds reads 'held', an? \w+, of which nothing tells one state from another"):
        plain(holds)


def test_a_function_of_a_script_is_told_by_its_code_where_another_script_is_run(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/x/site-packages/loky/worker.py", raising=False)
    provenance._is_library.cache_clear()
    helper, other = (FunctionType((lambda x: x).__code__, {"__name__": "__main__"}) for _ in range(2))
    other.__code__ = (lambda x: x + 1).__code__
    assert helper.__module__ == other.__module__ == "__main__"
    assert helper.__qualname__ == other.__qualname__
    assert plain(reading(above=helper)) != plain(reading(above=other))


# Libraries and source


def test_versions_are_those_installed():
    versions = library_versions()
    for name in ("numpy", "pandas", "numba", "faiss-cpu", "scikit-learn"):
        assert versions[name] == metadata.version(name)
    assert "qml-plugin" in versions


def test_a_library_that_is_absent_is_left_out(monkeypatch):
    monkeypatch.setattr(provenance, "_LIBRARIES", ("numpy", "surely-not-installed"))
    library_versions.cache_clear()
    try:
        assert list(library_versions()) == ["python", "numpy"]
    finally:
        library_versions.cache_clear()


class First:
    """One."""


class Second:
    """Two."""


def test_source_is_hashed_where_there_is_some():
    assert len(source_sha256(First)) == 64
    assert source_sha256(First) != source_sha256(Second)


def test_a_base_is_part_of_what_a_class_is():
    made = [type("Child", (base,), {"__module__": "nowhere"}) for base in (First, Second)]
    assert source_sha256(made[0]) != source_sha256(made[1])


def test_a_class_typed_by_hand_is_told_apart_by_its_code():
    def typed(body):
        namespace = {}
        exec(f"class Typed:\n    def next(self): return {body}", {"__name__": "nowhere"}, namespace)
        return source_sha256(namespace["Typed"])

    assert typed("1") == typed("1") != typed("2")


def test_the_folder_of_a_class(tmp_path, monkeypatch):
    assert source_folder(First) == Path(__file__).resolve().parent
    monkeypatch.chdir(tmp_path)
    assert source_folder(int) == tmp_path


# Git


def test_a_clean_repository(tmp_path, repository):
    assert git_state(tmp_path) == GitState(repository("rev-parse", "HEAD"), False)


def test_a_changed_file_is_dirty_and_a_new_one_is_not(tmp_path, repository):
    (tmp_path / "notes.txt").write_text("untracked\n")
    assert git_state(tmp_path).is_dirty is False
    git_state.cache_clear()
    (tmp_path / "code.py").write_text("a = 2\n")
    found = git_state(tmp_path)
    assert (found.commit, found.is_dirty) == (repository("rev-parse", "HEAD"), True)
    assert "\n-a = 1\n+a = 2\n" in found.diff


def test_a_diff_of_bytes_that_are_no_text_is_kept_readable(tmp_path, repository):
    (tmp_path / "code.py").write_bytes(b"a = '\xff'\n")
    assert "+a = '\ufffd'" in git_state(tmp_path).diff


def test_a_huge_diff_is_cut_and_says_so(tmp_path, repository):
    (tmp_path / "code.py").write_text("a = 1\n" * 300_000)
    diff = git_state(tmp_path).diff
    assert len(diff) < 1_000_100
    assert diff.endswith("characters more")


def test_a_folder_inside_a_repository(tmp_path, repository):
    (tmp_path / "deep").mkdir()
    assert git_state(tmp_path / "deep") == GitState(repository("rev-parse", "HEAD"), False)


def test_outside_a_repository(tmp_path):
    assert git_state(tmp_path) == GitState()
    assert git_state(tmp_path / "missing") == GitState()


def test_without_git(tmp_path, repository, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == GitState()


def test_a_git_that_hangs_is_given_up(tmp_path, repository, monkeypatch):
    def hang(*arguments, **options):
        raise subprocess.TimeoutExpired("git", options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    assert git_state(tmp_path) == GitState()


class Held:
    def __init__(self, value):
        self.value = value


def test_what_would_be_the_same_text_is_told_apart():
    apart = [
        float("nan"), float("inf"), float("-inf"), None, Held(1), Held(2),
        functools.partial(pow, 2), functools.partial(pow, 3), pd.Series([1, "a"]), pd.Series([1, "a"], index=[1, 2]),
    ]  # fmt: skip
    assert len({run_id(value) for value in apart}) == len(apart)
    assert run_id(Held([1])) == run_id(Held([1]))


def test_an_object_that_holds_itself_is_told_by_its_kind():
    held = Held(1)
    held.value = held
    assert str(plain(held)).startswith("Held@")


def test_a_script_finds_what_lies_beside_it_and_leaves_the_path_as_it_was(tmp_path):
    (tmp_path / "beside_it.py").write_text("class Base: pass\n")
    (tmp_path / "mine.py").write_text("from beside_it import Base\nclass Mine(Base): pass\n")
    before = list(sys.path)
    assert find_class(f"{tmp_path}/mine.py:Mine").__mro__[1].__name__ == "Base"
    assert sys.path == before


@pytest.mark.parametrize("name", provenance.SHIPPED)
def test_every_shipped_strategy_is_where_its_name_says(name):
    assert provenance.find_class(provenance.place_of(name)).__name__ == name
