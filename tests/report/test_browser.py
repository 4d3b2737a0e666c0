"""The page in a real browser, offline: every figure is drawn."""

import re
import shutil
import subprocess

import pytest

from qml_plugin.report.certification_page import write_certification_page
from qml_plugin.report.label_page import write_label_page
from qml_plugin.report.page import write_page
from qml_plugin.report.similar_page import write_similar_page
from qml_plugin.report.study_page import write_study
from tests.report import samples
from tests.report.test_certification_page import found as certification
from tests.report.test_label_page import page as label_page
from tests.report.test_similar_page import page as similar_page
from tests.report.test_study_page import view as study_view

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_page(samples.page(), path),
        lambda path: write_label_page(label_page(), path),
        lambda path: write_similar_page(similar_page(), path),
        lambda path: write_study(study_view(), path.parent)[0],
        lambda path: write_certification_page(certification(), path),
    ],
    ids=["demo", "label", "similar", "study", "certification"],
)
def test_every_figure_is_drawn(tmp_path, write):
    page = write(tmp_path / "page.html")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom",
        page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    n_places = len(re.findall(r'<div[^>]*class="[^"]*\bchart\b', page.read_text()))
    n_drawn = len(re.findall(r'<div[^>]*class="[^"]*\bjs-plotly-plot\b', done.stdout))
    assert n_drawn == n_places > 0
