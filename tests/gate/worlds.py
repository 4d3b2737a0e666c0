"""Seeded entries with and without something to learn."""

import numpy as np

HOUR = 3_600_000_000


def linear(n_entries, seed, *, strength, n_features=8, missing=0.05):
    """Features, outcomes, weights and label intervals; the first three features move the odds of a win."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_entries, n_features)).astype(np.float32)
    log_odds = strength * features[:, :3].sum(axis=1) - 0.2
    is_win = rng.random(n_entries) < 1 / (1 + np.exp(-log_odds))
    features[rng.random(features.shape) < missing] = np.nan
    return _labelled(features, is_win, rng)


def interaction(n_entries, seed):
    """A win is likely where two features have the same sign: nothing for a linear model."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_entries, 6)).astype(np.float32)
    is_win = rng.random(n_entries) < np.where(features[:, 0] * features[:, 1] > 0, 0.85, 0.15)
    return _labelled(features, is_win, rng)


def steps(n_entries, seed):
    """Above zero the first feature wins four times of five, below it three of ten: no sigmoid of it fits."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_entries, 3)).astype(np.float32)
    return _labelled(features, rng.random(n_entries) < np.where(features[:, 0] > 0, 0.8, 0.3), rng)


def alternating(n_entries, seed):
    """A signal that turns round with every fifth of the entries: what was learnt is wrong next."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_entries, 3)).astype(np.float32)
    side = np.where(np.arange(n_entries) // (n_entries // 5) % 2, -1, 1)
    is_win = rng.random(n_entries) < 1 / (1 + np.exp(-2 * side * features[:, 0]))
    return _labelled(features, is_win, rng)


def _labelled(features, is_win, rng):
    known_at = np.arange(len(features)) * HOUR
    resolved_at = known_at + rng.integers(1, 8, len(features)) * HOUR
    return features, is_win, rng.uniform(0.6, 1.0, len(features)), known_at, resolved_at
