"""Which backend a search uses, and what it says where there is none; registries on a server."""

from __future__ import annotations

import sys

import joblib
import pytest

from qml_plugin import sweep
from qml_plugin.errors import DataError, MissingExtra
from qml_plugin.sweeps.backends import backend_of
from tests.sweeps.clusters import assert_same, registry_on_a_server, remembered
from tests.sweeps.conftest import HOST
from tests.sweeps.troubled import Plain

FOUR = {"fast": [2, 3, 4, 5]}


def test_loky_and_a_registry_on_postgresql_come_to_the_same_rows(alone, tmp_path):
    with registry_on_a_server() as url:
        result = remembered(url, alone[0].folder.parent, tmp_path, is_disturbed=False, backend="loky", n_jobs=2)
        assert_same(result, url, alone)


def test_what_joblib_was_told_counts_and_arguments_count_more():
    assert (backend_of(None, None, None).n_jobs, backend_of(None, 3, None).n_jobs) == (1, 3)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        assert backend_of(None, None, None).n_jobs == 2
        assert backend_of("loky", 1, None).n_jobs == 1


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_a_backend_that_is_not_installed_names_the_install_command(backend, module, bars, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{module} is not installed.*pip install 'qml-plugin\[{backend}\]'"):
        sweep(Plain, bars, FOUR, backend=backend, folder=tmp_path)


def test_a_misspelt_backend_is_refused(bars, tmp_path):
    with pytest.raises(DataError, match=r"'dsak' is unknown. Use one of 'loky', 'dask', 'ray'.*Did you mean 'dask'\?"):
        sweep(Plain, bars, FOUR, backend="dsak", folder=tmp_path, **HOST)
    assert not list(tmp_path.iterdir())
