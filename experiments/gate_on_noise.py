"""How often does the gate become active where there is nothing to find?

Entries win with probability 0.4 whatever their confidence; a win pays 1.5 R, a loss costs 1 R, so skipping neither helps
nor harms. Confidences scatter around the base rate. As in a run, the verdict is asked whenever the scores have grown by
a fifth, from 200 to 1,500 of them. Run with ``python -m experiments.gate_on_noise``.
"""

from __future__ import annotations

import numpy as np

from qml_plugin.gate import Requirements, judge
from qml_plugin.memory.past import schedule_size

N_WORLDS, N_ENTRIES = 400, 1_500


def verdicts(seed: int, level: float) -> list[bool]:
    """Whether the gate is active at each look of one world."""
    rng = np.random.default_rng(seed)
    is_win = rng.random(N_ENTRIES) < 0.4
    r_multiple = np.where(is_win, 1.5, -1.0)
    confidence = np.clip(rng.normal(0.4, 0.02, N_ENTRIES), 0.01, 0.99)
    looks = sorted({schedule_size(n) for n in range(200, N_ENTRIES + 1)} - set(range(200)))
    weight, reference = np.ones(N_ENTRIES), np.full(N_ENTRIES, 0.4)
    requirements = Requirements(level=level)
    return [
        judge(
            confidence[:n],
            0.4,
            is_win[:n],
            r_multiple[:n],
            weight[:n],
            reference[:n],
            seed=seed,
            requirements=requirements,
        ).is_active
        for n in looks
    ]


def main() -> None:
    print(f"{N_WORLDS} worlds of noise, {N_ENTRIES} entries each")
    for level in (0.10, 0.05, Requirements().level):
        worlds = [verdicts(seed, level) for seed in range(N_WORLDS)]
        print(
            f"level {level:.2f}: active at the first look {np.mean([w[0] for w in worlds]):.1%}, at the last "
            f"{np.mean([w[-1] for w in worlds]):.1%}, ever {np.mean([any(w) for w in worlds]):.1%} of {len(worlds[0])} looks"
        )


if __name__ == "__main__":
    main()
