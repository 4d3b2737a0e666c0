PYTHON ?= python3
OUT ?= build
.PHONY: demo test lint types bench docs clean

demo: .venv/installed
	.venv/bin/qml demo --out $(OUT)/

test: .venv/installed
	.venv/bin/qml warmup
	.venv/bin/python -m pytest -n auto --dist loadfile

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/installed
	.venv/bin/mypy

bench: .venv/installed
	.venv/bin/python -m experiments.bench

docs: .venv/installed
	.venv/bin/python -m qml_plugin.features.page > docs/features.md

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q -c constraints.txt -e '.[all,dev]'
	touch .venv/installed

clean:
	rm -rf .venv build
