"""Models in the registry: copied whole, one row a model, one active, never outside the folder, no pickle."""

from __future__ import annotations

import hashlib
import pickle
import re
import resource
import signal
import sqlite3
import threading
from dataclasses import replace
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qml_plugin.errors import DataError, ModelLoadError, RegistryError
from qml_plugin.model_files import ModelCard
from qml_plugin.registry import PatternRegistry
from qml_plugin.registry.maintenance import backup, doctor, restore
from qml_plugin.registry.transfer import export_registry, import_registry
from tests.registry.registry_samples import dump, execute, finish, start
from tests.registry.test_registry_maintenance import sign
from tests.test_model_files import CARD, ubj


def make_model(folder, number=0, suffix="ubj", **changes):
    """A file that is whole, and the card that fits it; what it scores does not matter here."""
    path = folder / f"m{number}.{suffix}"
    content = ubj({"learner": {"number": number + 2}}) if suffix == "ubj" else b'{"learner": %d}' % number
    path.write_bytes(content)
    return path, replace(CARD, sha256=hashlib.sha256(content).hexdigest(), **changes)


@pytest.fixture
def add(registry, tmp_path):
    """Registers the model of a number; returns its id."""

    def call(number=0, strategy="Cross", timeframe="1h", **options):
        file, card = make_model(tmp_path, number)
        return registry.register_model(file, card, strategy=strategy, timeframe=timeframe, **options)

    return call


def active(registry):
    return {model["model_id"] for model in registry.get_models() if model["active"]}


def damages(url):
    report = doctor(url, deep=True)
    return [text for text in report["damages"] + report["warnings"] if "model" in text]


@pytest.mark.parametrize("suffix", ["ubj", "json"])
def test_a_registered_model_is_a_file_and_a_row(registry, path, url, tmp_path, suffix):
    file, card = make_model(tmp_path, suffix=suffix, metrics={"accuracy": 0.6, "auc": float("nan")})
    model_id = registry.register_model(file, card, strategy="Cross", timeframe="60m", notes="first")
    kept = path.parent / "models" / f"{model_id}.{suffix}"
    assert kept.read_bytes() == file.read_bytes()
    file.unlink()
    model = registry.get_model(model_id)
    assert model["path"] == kept
    assert model["model_path"] == f"models/{model_id}.{suffix}"
    assert (model["strategy"], model["timeframe"], model["active"], model["notes"]) == ("Cross", "1h", False, "first")
    assert (model["features"], model["test_accuracy"]) == (["a", "b"], 0.6)
    assert model["metrics"] == {"accuracy": 0.6, "auc": None}
    assert model["trained_through"] == datetime(2020, 9, 13, 12, 26, 40, 123456)
    assert model["card"].features == card.features
    assert model["card"].to_json() == card.to_json()
    assert damages(url) == []
    listed = registry.get_models()
    assert [one["model_id"] for one in listed] == [model_id]
    assert {"card", "path", "card_json"}.isdisjoint(listed[0])


def test_registering_again_is_the_same_row_and_mends_the_file(registry, path, add, tmp_path):
    model_id = add()
    registry.activate_model(model_id)
    before = dump(path)
    assert add() == model_id
    assert dump(path) == before
    kept = path.parent / "models" / f"{model_id}.ubj"
    kept.write_bytes(b"damaged")
    file, card = make_model(tmp_path, trained_at=1, versions={"xgboost": "9"}, metrics={})
    assert registry.register_model(file, card, strategy="Cross", timeframe="1h", notes="later") == model_id
    assert kept.read_bytes() == file.read_bytes()
    ((notes, n),) = execute(path, "SELECT notes, count(*) FROM ml_model_versions")
    assert (notes, n) == ("later", 1)
    with pytest.warns(
        RuntimeWarning, match=f"model {model_id} is registered already, with the notes 'later': those stay"
    ):
        assert add(notes="other") == model_id
    assert add(notes="later") == model_id
    assert execute(path, "SELECT notes FROM ml_model_versions") == [("later",)]


@pytest.mark.parametrize(
    "change",
    [{"trained_through": 0}, {"slope": 0.5}, {"features": {"b": None, "a": "1" * 64}}, {"speaks": "base_rate"}],
)
def test_the_same_file_cannot_mean_two_things(registry, path, add, tmp_path, change):
    model_id = add()
    before = dump(path)
    file, card = make_model(tmp_path, **change)
    with pytest.raises(
        DataError, match=f"model {model_id} is registered with another card: its {next(iter(change))} differ"
    ):
        registry.register_model(file, card, strategy="Cross", timeframe="1h")
    assert dump(path) == before
    other = registry.register_model(file, card, strategy="Other", timeframe="1h")
    assert other != model_id


def test_one_model_is_active_for_each_strategy_and_timeframe(registry, add):
    one, two, slow = add(1), add(2), add(3, timeframe="4h")
    assert registry.active_model("Cross", "1h") is None
    registry.activate_model(one)
    registry.activate_model(slow)
    assert registry.active_model("Cross", "60m")["model_id"] == one
    registry.activate_model(two)
    registry.activate_model(two)
    assert active(registry) == {two, slow}
    assert registry.active_model("Cross", "4h")["path"].is_file()
    assert registry.retire_model(two) is True
    assert registry.retire_model(two) is False
    assert active(registry) == {slow}
    assert {model["model_id"] for model in registry.get_models("Cross", "60m")} == {one, two}
    assert registry.get_models("Absent") == []


def test_an_unknown_model_is_refused_by_every_call(registry):
    for call in (registry.get_model, registry.activate_model, registry.retire_model):
        for model_id in ("nothing", "../../etc/passwd", "' OR 1=1 --"):
            with pytest.raises(DataError, match=r"is not in .*`qml models list` names those that are"):
                call(model_id)


def test_hostile_names_are_only_text(registry, path, add):
    model_id = add(strategy="../../x'; DROP TABLE ml_model_versions; --")
    assert (path.parent / "models" / f"{model_id}.ubj").is_file()
    assert len(registry.get_models()) == 1
    for name in ("", None, 3):
        with pytest.raises(DataError, match=r"strategy is .* It must be a text"):
            add(strategy=name)
    with pytest.raises(DataError, match=r"timeframe '../..' is not understood"):
        add(timeframe="../..")


# Paths that were written into the database


REFUSED = "leaves the folder of the registry|a model file ends in|lies nowhere else"
PATHS = [
    "../../../../etc/passwd",
    "models/../../secret.ubj",
    "/etc/passwd",
    "/etc/secret.ubj",
    "models/m.pkl",
    ".vscode/tasks.json",
    "m.ubj",
    "models/other.ubj",
    "models/deeper/m.ubj",
    "..\\m.ubj",
    "",
]


@pytest.mark.parametrize("stored", PATHS)
def test_a_stored_path_outside_the_folder_is_refused_and_reported(registry, path, url, add, stored):
    model_id = add()
    registry.activate_model(model_id)
    execute(path, "UPDATE ml_model_versions SET model_path = ?", (stored,))
    for call in (registry.get_model, registry.activate_model, lambda _: registry.active_model("Cross", "1h")):
        with pytest.raises(ModelLoadError, match=REFUSED):
            call(model_id)
    (finding,) = doctor(url, deep=True)["damages"]
    assert model_id in finding
    assert re.search(REFUSED, finding)
    assert "SHA-256" not in finding
    before, files = dump(path), sorted((path.parent / "models").iterdir())
    with pytest.raises(ModelLoadError, match=REFUSED):
        add()
    assert (dump(path), sorted((path.parent / "models").iterdir())) == (before, files)
    assert registry.retire_model(model_id) is True
    assert registry.get_models()[0]["model_path"] == stored


def test_what_the_doctor_says_of_a_model_is_what_activating_says(registry, path, url, add):
    model_id = add()
    kept = path.parent / "models" / f"{model_id}.ubj"
    content, ((card,),) = kept.read_bytes(), execute(path, "SELECT card_json FROM ml_model_versions")
    other = replace(ModelCard.from_json(card, "it"), sha256="b" * 64).to_json()

    def agree(finding, refusal):
        (found,) = damages(url)
        assert finding in found
        with pytest.raises(ModelLoadError, match=refusal):
            registry.activate_model(model_id)
        assert active(registry) == set()

    kept.unlink()
    agree("is missing", "cannot be read: No such file")
    kept.write_bytes(content[:-3])
    agree("not the one that was registered", "is not the one that its card describes")
    kept.write_bytes(content)
    for changed, finding in (
        (card.replace("0.4", "0.5"), "not as it was written"),
        ("{", "no JSON"),
        (other, "another file"),
    ):
        execute(path, "UPDATE ml_model_versions SET card_json = ?", (changed,))
        agree(finding, finding)
    execute(path, "UPDATE ml_model_versions SET card_json = ?", (card,))
    assert damages(url) == []
    registry.activate_model(model_id)


def test_a_model_that_cannot_be_activated_leaves_the_active_one(registry, path, add):
    one, two = add(1), add(2)
    registry.activate_model(one)
    (path.parent / "models" / f"{two}.ubj").write_bytes(b"")
    with pytest.raises(ModelLoadError, match="its SHA-256 is"):
        registry.activate_model(two)
    assert active(registry) == {one}


# What is no model


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("suffix", ["pkl", "joblib", "ubj", "json"])
def test_a_pickle_is_neither_kept_nor_run(registry, path, tmp_path, suffix):
    content = pickle.dumps(Bomb(tmp_path / "marker"))
    file = tmp_path / f"m.{suffix}"
    file.write_bytes(content)
    card = replace(CARD, sha256=hashlib.sha256(content).hexdigest())
    before = dump(path)
    with pytest.raises(ModelLoadError, match=r"Pickles and joblib files are never read|a model begins with"):
        registry.register_model(file, card, strategy="Cross", timeframe="1h")
    with pytest.raises(ModelLoadError, match="is no model card"):
        registry.register_model(make_model(tmp_path)[0], file, strategy="Cross", timeframe="1h")
    assert dump(path) == before
    assert not (tmp_path / "marker").exists()
    assert not (path.parent / "models").exists()


def test_a_card_may_be_a_file_and_must_be_the_models(registry, tmp_path):
    file, card = make_model(tmp_path)
    (tmp_path / "m.card.json").write_text(card.to_json())
    model_id = registry.register_model(file, tmp_path / "m.card.json", strategy="Cross", timeframe="1h")
    assert registry.get_model(model_id)["sha256"] == card.sha256
    with pytest.raises(ModelLoadError, match="is not the one that its card describes"):
        registry.register_model(make_model(tmp_path, 7)[0], card, strategy="Cross", timeframe="1h")
    with pytest.raises(ModelLoadError, match="the card says None"):
        registry.register_model(file, replace(card, sha256=None), strategy="Cross", timeframe="1h")


def test_a_registry_in_memory_has_no_folder_for_models(tmp_path):
    file, card = make_model(tmp_path)
    with pytest.raises(RegistryError, match="lives in memory: no files belong to it"):
        PatternRegistry("sqlite://").register_model(file, card, strategy="Cross", timeframe="1h")


# Disks, processes, threads


def test_a_full_disk_keeps_what_was_there(registry, path, add, tmp_path):
    add(1)
    file = tmp_path / "big.json"
    file.write_bytes(b'{"learner": "%s"}' % (b"x" * 9_000_000))
    card = replace(CARD, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    before, files = dump(path), sorted((path.parent / "models").iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, limits[1]))
        with pytest.raises(DataError, match=r"cannot be kept at .*: File too large. Nothing was registered"):
            registry.register_model(file, card, strategy="Cross", timeframe="1h")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert dump(path) == before
    assert sorted((path.parent / "models").iterdir()) == files


KILLED = """
import os, signal, sys
from pathlib import Path
from qml_plugin.registry import PatternRegistry
from tests.registry.registry_samples import dump, execute
from tests.registry.test_registry_models import damages, make_model

url, path, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
file, card = make_model(folder, 5)
registry, before = PatternRegistry(url), dump(path)

def register(step):
    count = 0
    def trace(frame, event, arg):
        nonlocal count
        count += event == "line"
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace if frame.f_code.co_filename.endswith(("models.py", "model_files.py")) else None
    sys.settrace(trace)
    registry.register_model(file, card, strategy="Cross", timeframe="1h")
    os._exit(0)

for step in range(1, 2000, 3):
    child = os.fork()
    if child == 0:
        register(step)
    status = os.waitpid(child, 0)[1]
    rows = execute(path, "SELECT model_id FROM ml_model_versions")
    assert damages(url) == [], step
    assert rows or dump(path) == before, step
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
print(step, len(rows))
"""


def test_killed_at_any_step_there_is_a_whole_model_or_none(registry, path, url, tmp_path, add):
    process = start(KILLED, url, path, tmp_path)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    last_step, n_rows = map(int, out.split())
    assert last_step > 60
    assert n_rows == 1
    assert [(add(5),)] == execute(path, "SELECT model_id FROM ml_model_versions")


RACE = """
import sys
from pathlib import Path
from qml_plugin.registry import PatternRegistry
from tests.registry.test_registry_models import make_model

url, folder, me = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
(folder / str(me)).mkdir()
registry = PatternRegistry(url)
for number in range(4):
    file, card = make_model(folder / str(me), number)
    registry.activate_model(registry.register_model(file, card, strategy="Cross", timeframe="1h"))
"""


def test_processes_that_register_and_activate_at_once_leave_one_active(registry, path, url, tmp_path):
    for err, code in finish([start(RACE, url, tmp_path, me) for me in range(3)]):
        assert code == 0, err
    assert len(registry.get_models()) == 4
    assert len(active(registry)) == 1
    assert damages(url) == []
    assert len(list((path.parent / "models").iterdir())) == 4


def test_a_reader_never_sees_two_active_or_none(registry, path, add):
    ids = [add(number) for number in range(2)]
    registry.activate_model(ids[0])
    seen, done = set(), threading.Event()

    def look():
        connection = sqlite3.connect(path)
        while not done.is_set():
            seen.add(connection.execute("SELECT count(*) FROM ml_model_versions WHERE active").fetchone()[0])
        connection.close()

    reader = threading.Thread(target=look)
    reader.start()
    for turn in range(40):
        registry.activate_model(ids[turn % 2])
    done.set()
    reader.join()
    assert seen == {1}


def test_a_model_on_a_server_lies_in_the_results_of_the_current_folder(tmp_path, monkeypatch):
    pytest.importorskip("psycopg")
    from tests.registry.postgresql_server import schema_of_its_own, server

    monkeypatch.chdir(tmp_path)
    with server() as address, schema_of_its_own(address) as url:
        registry = PatternRegistry(url)
        ids = []
        for number in range(2):
            file, card = make_model(tmp_path, number)
            ids.append(registry.register_model(file, card, strategy="Cross", timeframe="1h"))
            registry.activate_model(ids[-1])
        assert active(registry) == {ids[1]}
        assert registry.get_model(ids[0])["path"] == tmp_path / "results" / "models" / f"{ids[0]}.ubj"
        assert registry.active_model("Cross", "1h")["card"].sha256 == card.sha256
        assert damages(url) == []
        assert registry.retire_model(ids[1])


# Export and import


def test_an_export_carries_the_files_of_models(registry, add, url, tmp_path):
    ids = [add(0), add(1, timeframe="4h")]
    registry.activate_model(ids[1])
    export_registry(url, tmp_path / "out")
    there = f"sqlite:///{tmp_path}/there/x.db"
    import_registry(there, tmp_path / "out")
    assert damages(there) == []
    other = PatternRegistry(there)
    assert other.active_model("Cross", "4h")["path"] == tmp_path / "there" / "models" / f"{ids[1]}.ubj"
    assert other.get_model(ids[0])["path"].read_bytes() == registry.get_model(ids[0])["path"].read_bytes()


def test_a_damaged_model_stays_behind_with_a_warning(registry, add, url, tmp_path):
    model_id = add()
    registry.get_model(model_id)["path"].write_bytes(b"junk")
    with pytest.warns(RuntimeWarning, match=f"model {model_id} goes without its file: .*SHA-256"):
        export_registry(url, tmp_path / "out")
    assert not (tmp_path / "out" / "models").exists()


@pytest.mark.parametrize("damage", ["pickle", "gone", "elsewhere"])
def test_a_hostile_file_of_a_model_is_not_imported(registry, add, url, tmp_path, damage):
    model_id = add()
    export_registry(url, tmp_path / "out")
    file = tmp_path / "out" / "models" / f"{model_id}.ubj"
    if damage == "pickle":
        file.write_bytes(pickle.dumps({"x": 1}))
    elif damage == "gone":
        file.unlink()
    else:
        rows = pq.read_table(tmp_path / "out" / "ml_model_versions.parquet")
        at = rows.schema.get_field_index("model_path")
        pq.write_table(
            rows.set_column(at, "model_path", pa.array(["../../x.ubj"])), tmp_path / "out" / "ml_model_versions.parquet"
        )
        sign(tmp_path / "out", "ml_model_versions")
    there = tmp_path / "there" / "x.db"
    with pytest.warns(RuntimeWarning, match=f"model {model_id} goes without its file"):
        import_registry(f"sqlite:///{there}", tmp_path / "out")
    assert [item.name for item in there.parent.iterdir()] == [there.name]
    assert damages(f"sqlite:///{there}") != []


def test_an_import_overwrites_no_file_of_another_registry(registry, add, url, tmp_path):
    model_id = add()
    export_registry(url, tmp_path / "out")
    (tmp_path / "there" / "models").mkdir(parents=True)
    (tmp_path / "there" / "models" / f"{model_id}.ubj").write_bytes(b"mine")
    with pytest.warns(RuntimeWarning, match="is there with other bytes, and was not overwritten"):
        import_registry(f"sqlite:///{tmp_path}/there/x.db", tmp_path / "out")
    assert (tmp_path / "there" / "models" / f"{model_id}.ubj").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("model_id", "stored"),
    [
        ("m", ".vscode/tasks.json"),
        ("../x", "models/../x.json"),
        ("../.vscode/tasks", "models/../.vscode/tasks.json"),
        ("m", "models/n.json"),
        ("sub/m", "models/sub/m.json"),
        ("m.card", "models/m.card.json"),
        ("", "models/.json"),
    ],
)
def test_a_hostile_export_plants_no_file(registry, add, url, tmp_path, model_id, stored):
    add()
    out, content = tmp_path / "out", b'{"tasks": []}'
    export_registry(url, out)
    rows = pq.read_table(out / "ml_model_versions.parquet")
    values = {"model_id": model_id, "model_path": stored, "sha256": hashlib.sha256(content).hexdigest()}
    for name, value in values.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array([value]))
    pq.write_table(rows, out / "ml_model_versions.parquet")
    sign(out, "ml_model_versions")
    for file in (out / stored, out / "models" / stored.rsplit("/", 1)[-1]):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    there = tmp_path / "deep" / "there" / "x.db"
    with pytest.warns(RuntimeWarning, match=f"goes without its file: .*({REFUSED})"):
        import_registry(f"sqlite:///{there}", out)
    assert [item for item in (tmp_path / "deep").rglob("*") if item.is_file()] == [there]


def test_an_import_that_cannot_write_the_file_of_a_model_says_so_and_stores_nothing(registry, add, url, tmp_path):
    model_id = add()
    export_registry(url, tmp_path / "out")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "models").write_text("a file where the folder should be")
    with pytest.raises(RegistryError, match=f"the file of model {model_id} cannot be written to .*models: ") as caught:
        import_registry(f"sqlite:///{tmp_path}/there/x.db", tmp_path / "out")
    assert "cannot be read" not in str(caught.value)
    assert execute(tmp_path / "there" / "x.db", "SELECT count(*) FROM ml_model_versions") == [(0,)]


# Backup and restore


def test_a_backup_elsewhere_carries_the_files_of_models_and_a_restore_brings_them_back(
    registry, add, path, url, tmp_path
):
    ids = {add(0), add(1, timeframe="4h")}
    (tmp_path / "copies").mkdir()
    copy = backup(url, tmp_path / "copies" / "copy.db")
    beside = tmp_path / "copies" / "copy.db.models"
    assert {item.stem for item in beside.iterdir()} == ids
    there = tmp_path / "there" / "x.db"
    assert restore(f"sqlite:///{there}", copy) is None
    assert {item.name: item.read_bytes() for item in (there.parent / "models").iterdir()} == {
        item.name: item.read_bytes() for item in (path.parent / "models").iterdir()
    }
    assert damages(f"sqlite:///{there}") == []
    before = sorted(there.parent.rglob("*"))
    aside = restore(f"sqlite:///{there}", copy, replace=True)
    assert sorted(there.parent.rglob("*")) == sorted([*before, aside])


def test_a_backup_in_the_folder_of_the_registry_needs_none_and_may_be_restored_elsewhere(
    registry, add, path, url, tmp_path
):
    model_id = add()
    copy = backup(url)
    assert not copy.with_name(f"{copy.name}.models").exists()
    restore(url, copy, replace=True)
    assert damages(url) == []
    there = tmp_path / "there" / "x.db"
    restore(f"sqlite:///{there}", copy)
    assert (there.parent / "models" / f"{model_id}.ubj").is_file()


def test_a_backup_says_which_file_of_a_model_stays_behind(registry, add, path, url, tmp_path):
    model_id = add()
    (path.parent / "models" / f"{model_id}.ubj").unlink()
    (tmp_path / "copies").mkdir()
    with pytest.warns(RuntimeWarning, match=f"model {model_id} goes without its file"):
        copy = backup(url, tmp_path / "copies" / "copy.db")
    with pytest.warns(RuntimeWarning, match=f"model {model_id} goes without its file"):
        restore(f"sqlite:///{tmp_path}/there/x.db", copy)
    assert [item.name for item in (tmp_path / "there").iterdir()] == ["x.db"]


def test_a_restore_overwrites_no_file_of_a_model(registry, add, url, tmp_path):
    model_id = add()
    (tmp_path / "copies").mkdir()
    copy = backup(url, tmp_path / "copies" / "copy.db")
    kept = tmp_path / "there" / "models" / f"{model_id}.ubj"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")
    with pytest.warns(RuntimeWarning, match="is there with other bytes, and was not overwritten"):
        restore(f"sqlite:///{tmp_path}/there/x.db", copy)
    assert kept.read_bytes() == b"mine"


def test_a_backup_that_cannot_write_the_file_of_a_model_leaves_nothing(registry, add, url, tmp_path):
    model_id = add()
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "copy.db.models").write_text("a file where the folder should be")
    with pytest.raises(RegistryError, match=f"the file of model {model_id} cannot be written"):
        backup(url, tmp_path / "copies" / "copy.db")
    assert [item.name for item in (tmp_path / "copies").iterdir()] == ["copy.db.models"]
