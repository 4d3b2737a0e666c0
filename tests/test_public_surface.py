import subprocess
import sys
from pathlib import Path

import pytest

import qml_plugin
from qml_plugin import errors

ROOT = Path(__file__).parents[1]


def test_public_names_are_few_documented_and_in_the_readme():
    names = qml_plugin.__all__
    assert len(set(names)) == len(names)
    assert len(names) <= 14
    readme = (ROOT / "README.md").read_text()
    for name in names:
        assert getattr(qml_plugin, name).__doc__, name
        assert f"`{name}`" in readme, f"{name} is not in README.md"


def test_unknown_names_say_what_there_is():
    with pytest.raises(AttributeError, match=r"has no attribute 'Nothing'; it has .*PatternMixin"):
        qml_plugin.Nothing  # noqa: B018


def test_every_error_has_the_common_base_and_is_drawn():
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    for cls in classes:
        assert issubclass(cls, errors.QmlError)
        assert cls.__doc__
        assert cls.__name__ in errors.__doc__
    assert issubclass(errors.DataError, ValueError)
    assert issubclass(errors.MissingExtra, ImportError)


def test_a_missing_host_names_the_install_command(tmp_path):
    script = "import sys; sys.modules['backtesting'] = None\nfrom qml_plugin import PatternMixin"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "MissingExtra: backtesting is not installed" in done.stderr
    assert "pip install 'qml-plugin[backtesting]'" in done.stderr
