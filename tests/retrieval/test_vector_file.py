"""A file of vectors is as it was written, or is not believed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from qml_plugin.errors import RetrievalError
from qml_plugin.retrieval.vector_file import open_vectors, write_vectors

ROOT = Path(__file__).parents[2]
NAMES = [f"row {i}" for i in range(7)]


def matrix(n_rows=7, dim=3, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n_rows, dim)).astype(np.float32)
    rows[::3, 1:] = np.nan
    return rows


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "kept.vec"
    write_vectors(path, matrix(), NAMES, feature_set="f" * 64)
    return path


def forged(path, **changes):
    """The file with another card, of a length and with hashes that fit."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[40:48], "little")
    card = json.loads(raw[48 : 48 + length]) | changes
    text = json.dumps(card, sort_keys=True).encode()
    rest = len(text).to_bytes(8, "little") + text + raw[48 + length :]
    path.write_bytes(raw[:8] + hashlib.sha256(rest).digest() + rest)


def child(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_what_is_written_is_read_by_memory_map(file):
    found = open_vectors(file)
    assert found.row_names == NAMES
    assert isinstance(found.vectors, np.memmap)
    assert not found.vectors.flags.writeable
    assert found.vectors.offset % 64 == 0
    assert found.vectors.tobytes() == matrix().tobytes()
    assert (found.card.n_rows, found.card.dim, found.card.dtype) == (7, 3, "<f4")
    assert found.card.feature_set == "f" * 64
    assert found.card.built_from == hashlib.sha256("\n".join(NAMES).encode()).hexdigest()


@pytest.mark.parametrize(("n_rows", "dim"), [(0, 3), (1, 1), (100, 17), (3, 0)])
def test_any_shape_comes_back(tmp_path, n_rows, dim):
    names = [f"é{i}" for i in range(n_rows)]
    write_vectors(tmp_path / "x", matrix(n_rows, dim), names, feature_set="")
    found = open_vectors(tmp_path / "x")
    assert found.vectors.shape == (n_rows, dim)
    assert found.vectors.tobytes() == matrix(n_rows, dim).tobytes()
    assert list(found.row_names) == names


def test_the_same_rows_make_the_same_bytes(file, tmp_path):
    write_vectors(tmp_path / "again", matrix().astype(np.float64), NAMES, feature_set="f" * 64)
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_a_worker_maps_the_file(file):
    script = (
        "import sys; from pathlib import Path; from qml_plugin.retrieval.vector_file import open_vectors\n"
        "print(open_vectors(Path(sys.argv[1])).vectors.tobytes().hex())"
    )
    out, err = child(script, file).communicate(timeout=120)
    assert out.strip() == matrix().tobytes().hex(), err


def test_a_mapped_file_may_be_replaced(file):
    old = open_vectors(file).vectors
    write_vectors(file, matrix(seed=1), NAMES, feature_set="f" * 64)
    assert old.tobytes() == matrix().tobytes()
    assert open_vectors(file).vectors.tobytes() == matrix(seed=1).tobytes()


def test_every_flipped_bit_is_found(file):
    raw = file.read_bytes()
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises(RetrievalError, match=r"^it(s| is| has) "):
            open_vectors(file)


def test_every_length_but_its_own_is_found(file):
    raw = file.read_bytes()
    for length in range(len(raw)):
        file.write_bytes(raw[:length])
        with pytest.raises(RetrievalError, match=r"^it(s| is| has) "):
            open_vectors(file)
    file.write_bytes(raw + b"\0")
    with pytest.raises(RetrievalError, match=r"its card tells of 7 rows of 3"):
        open_vectors(file)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "it is empty"),
        (b"garbage" * 100, "it is no file of vectors"),
        (b"QMLVEC1\n", "cut short"),
        (b"QMLVEC1\n" + b"\xff" * 60, "cut short, or its head is damaged"),
        (b"QMLVEC1\n" + bytes(32) + (2).to_bytes(8, "little") + b"[]", "its card is damaged: it must hold n_rows"),
        (b"QMLVEC1\n" + bytes(32) + (2).to_bytes(8, "little") + b"{{", "its card is damaged: Expecting"),
    ],
)
def test_what_is_no_file_of_vectors_is_refused(file, content, cause):
    file.write_bytes(content)
    with pytest.raises(RetrievalError, match=cause):
        open_vectors(file)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"n_rows": 2**60}, r"tells of 1152921504606846976 rows of 3"),
        ({"n_rows": 6}, r"tells of 6 rows of 3"),
        ({"dim": 2}, r"tells of 7 rows of 2"),
        ({"n_rows": 3, "dim": 7}, "card tells of 3 rows, it names 7"),
        ({"n_rows": -7, "dim": -3}, "its card is damaged"),
        ({"n_rows": True}, "its card is damaged: it must hold"),
        ({"n_rows": 7.0}, "its card is damaged: it must hold"),
        ({"dtype": "<f8"}, "its card is damaged"),
        ({"built_from": "0" * 64}, "the names of its rows are not those"),
        ({"more": 1}, "its card is damaged: it must hold"),
    ],
)
def test_a_forged_card_is_found_though_its_hash_fits(file, changes, cause):
    forged(file, **changes)
    with pytest.raises(RetrievalError, match=cause):
        open_vectors(file)


def test_a_missing_file_is_told_apart_from_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        open_vectors(tmp_path / "none")


@pytest.mark.parametrize("names", [NAMES[:-1], [*NAMES[:-1], "two\nlines"]])
def test_rows_without_a_name_of_one_line_are_refused(tmp_path, names):
    with pytest.raises(RetrievalError, match="Each row needs a name of one line"):
        write_vectors(tmp_path / "x", matrix(), names, feature_set="")
    assert list(tmp_path.iterdir()) == []


CRAMPED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from qml_plugin.retrieval.vector_file import write_vectors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_vectors(Path(sys.argv[1]), np.ones((1000, 100), np.float32), list(map(str, range(1000))), feature_set="")
except OSError as error:
    print(type(error).__name__, error.errno)
"""


def test_a_full_disk_leaves_the_old_file_and_nothing_else(file):
    before = file.read_bytes()
    out, err = child(CRAMPED, file).communicate(timeout=120)
    assert out.startswith("OSError 27"), err
    assert file.read_bytes() == before
    assert [entry.name for entry in file.parent.iterdir()] == ["kept.vec"]


KILLED = """
import sys
from pathlib import Path
import numpy as np
from qml_plugin.retrieval.vector_file import write_vectors
print("ready", flush=True)
for value in range(1, 1000):
    write_vectors(Path(sys.argv[1]), np.full((10_000, 200), value, np.float32), list(map(str, range(10_000))), feature_set="")
"""


def test_a_process_killed_while_it_writes_leaves_a_whole_file(file):
    for wait_s in (0.0, 0.02, 0.05):
        process = child(KILLED, file)
        assert process.stdout.readline() == "ready\n"
        until = time.monotonic() + 60
        while not list(file.parent.glob("*.partial")) and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(wait_s)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        found = open_vectors(file)
        assert len(found.row_names) in (7, 10_000)
        assert found.card.n_rows == 7 or len(np.unique(found.vectors)) == 1
