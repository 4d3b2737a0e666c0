"""Features kept in a file beside the database: never another answer than the registry's own."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from qml_plugin.errors import RegistryCorrupt
from qml_plugin.registry import PatternRegistry, vectors
from qml_plugin.registry.known import known_of
from qml_plugin.registry.vectors import KeptVectors, folder_beside, vector_file_faults
from qml_plugin.retrieval.similar import similar_patterns
from qml_plugin.retrieval.vector_file import open_vectors, write_vectors
from tests.registry.registry_samples import FEATURE_SET, NAMES, execute, make_outcome, make_pattern, make_run, save

N = 60


def some_patterns(first, n_patterns):
    rng = np.random.default_rng(first)
    features = rng.normal(size=(n_patterns, 3))
    features[rng.random(features.shape) < 0.1] = np.nan
    return [make_pattern(first + i, row, outcome=make_outcome(first + i)) for i, row in enumerate(features)]


@pytest.fixture(autouse=True)
def _files_of_few(monkeypatch):
    monkeypatch.setattr(vectors, "PAYS_FROM", 20)


@pytest.fixture
def file(path):
    return path.with_name("registry.db.vectors") / f"{FEATURE_SET[:16]}.vec"


@pytest.fixture
def large(registry, file):
    """A registry whose features are kept in a file."""
    save(registry, some_patterns(0, N))
    registry.known_patterns(FEATURE_SET, NAMES)
    assert file.is_file()
    return registry


def everything(known):
    columns = (
        known.side,
        known.known_at,
        known.resolved_at,
        known.is_win,
        known.r_multiple,
        known.confidence,
        known.features,
    )
    return (known.pattern_id, known.group, known.ignored, [(c.dtype, c.shape, c.tobytes()) for c in columns])  # fmt: skip


def neighbours(known):
    return similar_patterns(known, np.array([0.1, np.nan, -1], np.float32), ["a", "a", "b"], side=1, as_of=2**60, k=7)


def truth(registry, names=NAMES):
    """What the registry itself says, without any file."""
    with registry._database.read() as connection:
        return known_of(connection, FEATURE_SET, names)


def faults(registry):
    with registry._database.read() as connection:
        return vector_file_faults(connection, registry._database.path)


def assert_true(registry, *, is_mapped):
    known, expected = registry.known_patterns(FEATURE_SET, NAMES), truth(registry)
    assert everything(known) == everything(expected)
    assert neighbours(known) == neighbours(expected)
    assert (
        registry.read_snapshot(FEATURE_SET, NAMES)[1].sha256
        == registry.read_snapshot(FEATURE_SET, NAMES, through_seq=10**9)[1].sha256
    )
    assert (not known.features.flags.owndata and not known.features.flags.writeable) == is_mapped


def assert_made_anew(registry, file, cause):
    """A warning that names file and cause; the same answer; and a file that is used again without a word."""
    with pytest.warns(RuntimeWarning, match=rf"features kept in {file} are not used: .*{cause}"):
        known = registry.known_patterns(FEATURE_SET, NAMES)
    assert everything(known) == everything(truth(registry))
    assert neighbours(known) == neighbours(truth(registry))
    assert_true(registry, is_mapped=True)
    assert faults(registry) == []


def test_features_of_many_patterns_are_mapped(large, file):
    assert_true(large, is_mapped=True)
    assert open_vectors(file).card.n_rows == N
    assert faults(large) == []


def test_few_patterns_are_not_worth_a_file(registry, file):
    save(registry, some_patterns(0, 19))
    assert_true(registry, is_mapped=False)
    assert not file.parent.exists()


def test_the_first_file_that_pays_is_of_five_thousand(registry, file, monkeypatch):
    monkeypatch.undo()
    assert vectors.PAYS_FROM == 5_000
    save(registry, some_patterns(0, 4_999))
    registry.known_patterns(FEATURE_SET, NAMES)
    assert not file.exists()
    save(registry, some_patterns(5_000, 1), make_run("run-2"))
    registry.known_patterns(FEATURE_SET, NAMES)
    assert_true(registry, is_mapped=True)


def test_a_missing_file_is_made_without_a_word(large, file):
    file.unlink()
    large.known_patterns(FEATURE_SET, NAMES)
    assert_true(large, is_mapped=True)


def damage(file, what):
    raw = file.read_bytes()
    if what == "bit flip in a vector":
        raw = raw[:-5] + bytes([raw[-5] ^ 4]) + raw[-4:]
    elif what == "bit flip in a name":
        raw = raw.replace(b"\n", b"\x0b", 2).replace(b"\x0b", b"\n", 1)
    elif what in ("forged row count", "forged dimension"):
        old, new = (b'"n_rows": 60', b'"n_rows": 61') if what == "forged row count" else (b'"dim": 3', b'"dim": 9')
        assert raw.count(old) == 1
        raw = raw.replace(old, new)
    else:
        raw = {"truncated": raw[: len(raw) // 2], "garbage": b"\x93NUMPY" * 500, "empty": b""}[what]
    file.write_bytes(raw)


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("truncated", "its card tells of 60 rows of 3"),
        ("garbage", "it is no file of vectors"),
        ("empty", "it is empty"),
        ("forged row count", "its card tells of 61 rows of 3"),
        ("forged dimension", "its card tells of 60 rows of 9"),
        ("bit flip in a vector", "its SHA-256 is another"),
        ("bit flip in a name", "its SHA-256 is another"),
    ],
)
def test_a_damaged_file_is_made_anew(large, file, what, cause):
    damage(file, what)
    assert [f"{file} cannot be used" in fault for fault in faults(large)] == [True]
    assert_made_anew(large, file, cause)


@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        ("DELETE FROM ml_pattern_registry WHERE rowid = 7", "0 patterns were added, 1 deleted and 0 changed"),
        ("UPDATE ml_pattern_registry SET user_label = 'ignore' WHERE rowid = 7", "0 patterns were added, 1 deleted"),
        ("UPDATE ml_pattern_registry SET resolved_at = '2030-01-01 00:00:00.000000' WHERE rowid = 7", "another order"),
        ("UPDATE ml_pattern_registry SET row_sha256 = 'x' WHERE rowid = 7", "0 deleted and 1 changed"),
    ],
)
def test_a_file_that_the_registry_has_left_behind_is_made_anew(large, path, file, statement, cause):
    execute(path, "DELETE FROM run_decisions")
    execute(path, statement)
    assert [cause in fault for fault in faults(large)] == [True]
    assert_made_anew(large, file, cause)


@pytest.mark.parametrize(("n_added", "is_made_anew"), [(2, False), (30, True)])
def test_rows_that_were_added_are_noticed_without_a_word(large, file, n_added, is_made_anew):
    before = file.read_bytes()
    save(large, some_patterns(100, n_added), make_run("run-2"))
    assert [f"{n_added} patterns were added, 0 deleted and 0 changed" in fault for fault in faults(large)] == [True]
    known = large.known_patterns(FEATURE_SET, NAMES)
    assert known.features.tobytes() == truth(large).features.tobytes()
    assert (file.read_bytes() != before) == is_made_anew
    assert (faults(large) == []) == is_made_anew


def test_a_row_that_a_person_labelled_is_noticed(large, file):
    large.label_pattern(large.known_patterns(FEATURE_SET, NAMES).pattern_id[3], "loss")
    assert_made_anew(large, file, "0 patterns were added, 0 deleted and 1 changed")


@pytest.mark.parametrize("place", [0, 30, N - 1])
def test_features_changed_by_another_program_are_read_from_the_registry(large, path, file, place):
    pattern_id = large.known_patterns(FEATURE_SET, NAMES).pattern_id[place]
    changed = '{"ctx_atr": 5.5, "mom_return": null, "geo_depth": 7.25}'
    execute(path, "UPDATE ml_pattern_registry SET features_json = ? WHERE pattern_id = ?", (changed, pattern_id))
    with pytest.warns(RuntimeWarning, match="1 deleted"):  # its compact copy is gone
        known = large.known_patterns(FEATURE_SET, NAMES)
    assert known.features[place].tolist()[::2] == [5.5, 7.25]
    assert everything(known) == everything(truth(large))
    changed = changed.replace("5.5", "6.5")
    execute(path, "UPDATE ml_pattern_registry SET features_json = ? WHERE pattern_id = ?", (changed, pattern_id))
    known = large.known_patterns(FEATURE_SET, NAMES)
    assert known.features[place, 0] == 6.5
    assert everything(known) == everything(truth(large))
    assert faults(large) == []


def test_a_tampered_row_is_refused_with_a_file_as_without(large, path):
    execute(path, "UPDATE ml_pattern_registry SET features_json = '[]' WHERE rowid = 7")
    with pytest.warns(RuntimeWarning, match="1 deleted"), pytest.raises(RegistryCorrupt, match="is a list"):
        large.known_patterns(FEATURE_SET, NAMES)


def test_a_file_of_another_registry_is_not_believed(large, file, tmp_path):
    other = PatternRegistry(f"sqlite:///{tmp_path}/other.db")
    save(other, some_patterns(1000, N))
    other.known_patterns(FEATURE_SET, NAMES)
    file.write_bytes((tmp_path / "other.db.vectors" / file.name).read_bytes())
    assert_made_anew(large, file, "60 patterns were added, 60 deleted and 0 changed")


def test_a_file_of_another_feature_set_is_not_believed(large, file):
    found = open_vectors(file)
    rows, names = np.array(found.vectors), found.row_names
    write_vectors(file, rows, names, feature_set=FEATURE_SET[:16] + "0" * 48)
    assert_made_anew(large, file, "it holds feature set ffffffffffffffff0")
    write_vectors(file, rows[:, :2], names, feature_set=FEATURE_SET)
    assert_made_anew(large, file, "it holds 2 features, the feature set has 3")


def test_forged_vectors_with_a_hash_that_fits_are_found_by_the_deep_check(large, file):
    found = open_vectors(file)
    rows = np.array(found.vectors)
    rows[5, 0] += 1
    write_vectors(file, rows, found.row_names, feature_set=FEATURE_SET)
    pattern_id = large.known_patterns(FEATURE_SET, NAMES).pattern_id[5]
    assert [f"the features of pattern {pattern_id} are others" in fault for fault in faults(large)] == [True]


def test_what_a_killed_process_left_is_told(large, file):
    (file.parent / "x.vec.abc.partial").write_bytes(b"half")
    assert [fault.endswith("may be deleted") for fault in faults(large)] == [True]


def test_features_in_another_order_are_those_of_the_registry(large, file):
    before = file.read_bytes()
    for names in (NAMES[::-1], NAMES[:1], [NAMES[2], NAMES[0]]):
        assert everything(large.known_patterns(FEATURE_SET, names)) == everything(truth(large, names))
    with pytest.raises(RegistryCorrupt, match="has no feature 'other'"):
        large.known_patterns(FEATURE_SET, ["other"])
    assert file.read_bytes() == before


def test_an_earlier_snapshot_neither_reads_nor_writes_the_file(large, file):
    seq = large.read_snapshot(FEATURE_SET, NAMES)[1].seq
    save(large, some_patterns(100, 5), make_run("run-2"))
    before = file.read_bytes()
    assert len(large.read_snapshot(FEATURE_SET, NAMES, through_seq=seq)[0]) == N
    assert file.read_bytes() == before


def test_a_registry_in_memory_has_no_file():
    registry = PatternRegistry("sqlite://")
    save(registry, some_patterns(0, N))
    assert len(registry.known_patterns(FEATURE_SET, NAMES)) == N
    assert faults(registry) == []
    assert KeptVectors.beside(None, FEATURE_SET) is None


@pytest.mark.parametrize("feature_set", ["other", "../../../../etc/passwd", "ffff", ""])
def test_a_feature_set_whose_name_is_no_hash_gets_no_file(path, feature_set):
    assert KeptVectors.beside(path, feature_set) is None


def test_known_patterns_of_a_mapped_file_may_be_pickled(large):
    known = large.known_patterns(FEATURE_SET, NAMES)
    assert everything(pickle.loads(pickle.dumps(known))) == everything(known)  # noqa: S301


def test_a_file_that_cannot_be_written_costs_a_warning_only(registry, path):
    folder_beside(path).write_text("in the way")
    save(registry, some_patterns(0, N))
    with pytest.warns(RuntimeWarning, match=r"features could not be kept in .* Nothing is lost"):
        known = registry.known_patterns(FEATURE_SET, NAMES)
    assert everything(known) == everything(truth(registry))


CHILD = """
import os, resource, signal, sys, warnings
from qml_plugin.registry import PatternRegistry, vectors
from tests.registry.registry_samples import FEATURE_SET, NAMES
vectors.PAYS_FROM = 20
url, what = sys.argv[1:]
PatternRegistry("sqlite://").known_patterns(FEATURE_SET, NAMES)
import qml_plugin.retrieval.vector_file
registry = PatternRegistry(url)
if what == "full disk":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
elif os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    known = registry.known_patterns(FEATURE_SET, NAMES)
print(known.features.tobytes().hex())
print(*(f"{w.category.__name__}: {w.message}" for w in caught), sep="\\n")
"""


def in_a_process(url, what):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, url, what],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    features, _, said = done.stdout.strip().partition("\n")
    return features, said


def test_a_full_disk_leaves_the_old_file_and_fails_no_run(large, url, file):
    save(large, some_patterns(100, 500), make_run("run-2"))
    before = file.read_bytes()
    features, said = in_a_process(url, "full disk")
    assert features == truth(large).features.tobytes().hex()
    assert "are not used" not in said
    assert "could not be kept" in said
    assert "File too large" in said
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_that_cannot_be_written_is_left_alone(large, url, file, path):
    save(large, some_patterns(100, 5), make_run("run-2"))
    before = file.read_bytes()
    # The folders of this test belong to one user alone: others may read them now.
    for folder in (path.parent, *path.parent.parents):
        if folder == Path("/tmp") or folder == folder.parent:
            break
        folder.chmod(0o755)
    path.parent.chmod(0o555)
    try:
        features, said = in_a_process(url, "read-only")
    finally:
        path.parent.chmod(0o755)
    assert features == truth(large).features.tobytes().hex()
    assert "lies in a folder that cannot be written" in said
    assert "could not be kept" not in said
    assert file.read_bytes() == before


def test_a_file_that_is_up_to_date_is_used_without_a_word(large):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            large.known_patterns(FEATURE_SET, NAMES)


def test_a_file_of_more_than_there_are_now_is_left_alone(large, path, file):
    execute(path, "DELETE FROM run_decisions")
    execute(path, "DELETE FROM ml_pattern_registry WHERE rowid > 10")
    before = file.read_bytes()
    assert_true(large, is_mapped=False)
    assert file.read_bytes() == before
    assert ["50 deleted" in fault for fault in faults(large)] == [True]


def test_readers_that_make_the_file_at_once_all_read_the_truth(registry, file):
    save(registry, some_patterns(0, N))
    expected = everything(truth(registry))
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            file.unlink(missing_ok=True)
            found = list(pool.map(lambda _: everything(registry.known_patterns(FEATURE_SET, NAMES)), range(8)))
            assert found == [expected] * 8
    assert list(file.parent.iterdir()) == [file]
