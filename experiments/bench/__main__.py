"""Run every benchmark, print one table, save it as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/bench.json"), help="where the JSON goes")
    out = parser.parse_args().out
    from experiments.bench import mixin_cost
    from qml_plugin.provenance import git_state, library_versions

    rows = [row for bench in (mixin_cost,) for row in bench.run()]
    print(f"{'benchmark':<72}{'contender':<26}{'cold ms':>10}{'median ms':>11}{'ratio':>8}{'target':>8}")
    for row in rows:
        target = "" if row.target is None else f"{row.target:g}"
        print(
            f"{row.bench:<72}{row.contender:<26}{row.cold_ms:>10.1f}{row.median_ms:>11.1f}{row.ratio:>8.2f}{target:>8}"
        )
    commit, is_dirty = git_state(Path(__file__).resolve().parent)
    record = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "is_dirty": is_dirty,
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
