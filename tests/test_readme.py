"""Every block of the README runs: Python and console blocks here, the two commands against the Makefile and .ci/run."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.M | re.S)


def blocks(language):
    return [body for name, body in BLOCKS if name == language]


def test_every_block_is_of_a_kind_that_is_tested():
    assert {name for name, _ in BLOCKS} == {"bash", "python", "console", "text"}


@pytest.mark.filterwarnings("ignore::UserWarning:backtesting")
def test_python_and_console_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    from qml_plugin.cli import main

    monkeypatch.chdir(tmp_path)
    shown = ""
    namespace = {"__name__": "readme"}
    for language, body in BLOCKS:
        if language == "python":
            exec(compile(body, "README.md", "exec"), namespace)
        elif language == "console":
            for line in body.splitlines():
                assert line.startswith("$ qml "), line
                shown += capsys.readouterr().out
                code = 0
                try:
                    main(line.split()[2:])  # the installed program is tested with the command line
                except SystemExit as end:
                    code = end.code or 0
                assert code == 0, line
                assert capsys.readouterr().out, line
    shown += capsys.readouterr().out
    assert "abstain" in shown
    assert (tmp_path / "experiments.db").exists()
    assert (tmp_path / "copy.db").stat().st_size > 0


def test_the_plain_commands_are_those_of_make():
    planned = subprocess.run(["make", "-n", "-B", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands, plain, light = blocks("bash")
    assert commands.split("\n") == ["make demo", "make test", ""]
    for line in plain.splitlines():
        assert line in planned.splitlines()
    ci = (ROOT / ".ci" / "run").read_text()
    assert "make demo" in ci
    assert "make test" in ci
    install = light.splitlines()[1].split("install ", 1)[1]
    assert install in ci


def test_the_feature_count_is_true():
    from qml_plugin import CATALOGUE

    assert f"{len(CATALOGUE)} features" in README
    assert f"{len(CATALOGUE)} point-in-time features" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"])
def test_local_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text()):
        if "://" not in target:
            assert (ROOT / target).exists(), target
