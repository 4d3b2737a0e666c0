"""Imports go down only, and each third party stays in the folder that adapts it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "qml_plugin"

LAYERS = {
    "__version__": -1, "errors": 0, "records": 0, "compiling": 0, "clock": 1, "model_files": 2, "processes": 1, "provenance": 1, "stats": 1, "bars": 2, "features": 3, "detection": 4, "labels": 4, "registry": 4,
    "retrieval": 3, "gate": 5, "memory": 6, "adapters": 7, "pandas": 8, "audit": 8, "sweeps": 8, "vrd": 9, "report": 10, "studies": 11, "demo": 11, "labelling": 11, "neighbours": 11, "cli": 12, "__main__": 13,
}  # fmt: skip
ALLOWED = {
    "sqlalchemy": {"registry"}, "alembic": {"registry"}, "faiss": {"retrieval"}, "xgboost": {"gate"}, "sklearn": {"gate", "stats"},
    "backtesting": {"adapters"}, "vectorbt": {"adapters"}, "joblib": {"sweeps"}, "optuna": {"sweeps"}, "dask": {"sweeps"}, "distributed": {"sweeps"}, "ray": {"sweeps"}, "cloudpickle": {"sweeps"}, "arch": {"stats"}, "statsmodels": {"stats"}, "plotly": {"report"}, "jinja2": {"report"}, "mlflow": {"report"},
    "yaml": {"studies"}, "typer": {"cli"}, "rich": {"cli"}, "tqdm": {"demo"}, "strategies": {"demo"}, "experiments": set(), "tests": set(),
}  # fmt: skip


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} uses a relative import"
            found += [
                (node.lineno, f"{node.module}.{alias.name}" if node.module == "qml_plugin" else node.module)
                for alias in node.names
            ]
    return found


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_and_third_parties_stay_home(path):
    own = room(path)
    for line, name in imports(path):
        parts = name.split(".")
        if parts[0] == "qml_plugin":
            other = parts[1]
            assert other == own or LAYERS[other] < LAYERS[own], (
                f"{path}:{line}: {own} ({LAYERS[own]}) imports {other} ({LAYERS[other]})"
            )
        elif parts[0] in ALLOWED:
            assert own in ALLOWED[parts[0]], f"{path}:{line}: {own} may not import {parts[0]}"


def test_every_room_has_a_layer():
    assert {room(path) for path in MODULES} <= set(LAYERS)


def test_strategies_stand_on_the_package_and_the_host_only():
    for path in sorted((ROOT / "strategies").glob("*.py")):
        tops = {name.split(".")[0] for _, name in imports(path)}
        assert tops <= {"qml_plugin", "backtesting", "numpy", "__future__", "strategies", "collections"}, path


HEAVY = ("numba", "xgboost", "faiss", "vectorbt", "backtesting", "plotly", "sklearn", "sqlalchemy")


@pytest.mark.parametrize("code", ["import qml_plugin", "from qml_plugin.cli import main; main(['--help'])"])
def test_importing_and_help_load_nothing_heavy(code):
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit as stop:\n    assert stop.code == 0, stop.code\nheavy = [m for m in {HEAVY} if m in sys.modules]\nassert not heavy, heavy"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)


def test_the_package_runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "qml_plugin", "--help"], capture_output=True, text=True, check=True)
    assert "Usage: qml" in done.stdout
