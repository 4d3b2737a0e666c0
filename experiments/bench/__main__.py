"""Run every benchmark, print one table, save it as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")
BENCHES = ("mixin_cost", "features", "registry", "retrieval", "detection", "statistics", "vectorbt", "sweep", "columns")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only",
        choices=BENCHES,
        help="run one file of benchmarks",
    )
    parser.add_argument("--out", type=Path, default=Path("results/bench.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    out = arguments.out
    from qml_plugin.provenance import git_state, library_versions

    chosen = [arguments.only] if arguments.only else BENCHES
    rows = [row for name in chosen for row in import_module(f"experiments.bench.{name}").run()]
    print(f"{'benchmark':<64}{'contender':<44}{'cold':>9}{'median':>11} {'unit':<9}{'ratio':>8}  {'target':<16}")
    for row in rows:
        cold = "" if row.cold is None else f"{row.cold:.2f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        verdict = "" if row.is_met is None else "met" if row.is_met else "MISSED"
        print(
            f"{row.bench:<64}{row.contender:<44}{cold:>9}{row.median:>11.2f} {row.unit:<9}{ratio:>8}  {row.target:<16}{verdict}"
        )
    state = git_state(Path(__file__).resolve().parent)
    record = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": state.commit,
        "is_dirty": state.is_dirty,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()}",
        "python": platform.python_version(),
        "versions": library_versions(),
        "rows": [row.as_dict() for row in rows],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2))
    print(f"saved {out}")


if __name__ == "__main__":
    main()
