"""How many planted leaks the audit catches, and how often it accuses a strategy that sees no future.

    python -m experiments.audit_self_test --data FOLDER --out FILE

The shipped strategies are audited on the bundled series and on every file of OHLCV bars in the folder (or ``QML_DATA``), at most the
last ``--bars`` bars of each, with 20 cuts. What FILE holds already is not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from importlib import import_module
from pathlib import Path

from qml_plugin.audit import audit, self_test
from qml_plugin.bars import read_bars
from qml_plugin.errors import DataError

STRATEGIES = {
    "strategies.qml:QMLStrategy": {},
    "strategies.moving_average:MovingAverageCross": {"exclusive_orders": True},
    "strategies.donchian:DonchianBreakout": {},
    "strategies.rsi_reversion:RSIReversion": {},
}
N_CUTS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("QML_DATA"), help="folder of .csv and .parquet files")
    parser.add_argument("--out", type=Path, default=Path("build/audit_self_test.json"))
    parser.add_argument("--bars", type=int, default=5_000, help="at most the last so many of each series")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(options.out.read_text()) if options.out.exists() else {"audits": {}}
    files = sorted(Path(options.data).glob("*.*")) if options.data else []
    for data in ["GOOG", "EURUSD", *files]:
        frame = _bars(data, options.bars)
        for strategy, host in STRATEGIES.items():
            key = f"{strategy} on {Path(data).name}"
            if frame is None or key in found["audits"] or not _exists(strategy):
                continue
            report = audit(strategy, frame, n_cuts=N_CUTS, **host)
            found["audits"][key] = {
                "verdict": report.verdict, "n_bars": report.n_bars, "n_cuts": len(report.cuts), "n_runs": report.n_runs,
                "seconds": round(report.seconds, 1), "compared": dict(report.compared), "said": str(report),
            }  # fmt: skip
            _keep(found, options.out)
            print(f"{report.verdict:8} {report.seconds:6.1f} s  {key}", flush=True)
    if "self_test" not in found:
        started = time.monotonic()
        result = self_test(n_cuts=N_CUTS)
        places = dict.fromkeys(place for place, _ in result.leaking)
        found["self_test"] = {
            "caught": {place: result.n_caught(place) for place in places}, "n_leaks": len(result.leaking) // len(places),
            "missed": result.missed, "accused": result.accused, "n_honest": len(result.honest),
            "cuts": {f"{leak} ({place})": r.leaks[0].n_cuts if r.leaks else 0 for (place, leak), r in result.leaking.items()},
            "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        _keep(found, options.out)
    verdicts = [one["verdict"] for one in found["audits"].values()]
    print(
        f"{len(verdicts)} audits of shipped strategies: {verdicts.count('clean')} clean, {verdicts.count('leak')} accused"
    )
    print(json.dumps(found["self_test"], indent=2))


def _exists(strategy: str) -> bool:
    with contextlib.suppress(ModuleNotFoundError):
        return import_module(strategy.partition(":")[0]) is not None
    return False


def _bars(data: str | Path, n_bars: int):
    if not isinstance(data, Path):
        from qml_plugin.audit.examine import frame_of

        return frame_of(data)[0].iloc[-n_bars:]
    try:
        return read_bars(data).iloc[-n_bars:]
    except DataError as error:
        print(f"left out {data.name}: {error}")
        return None


def _keep(found: dict, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(found, indent=2))
    temporary.replace(path)


if __name__ == "__main__":
    main()
