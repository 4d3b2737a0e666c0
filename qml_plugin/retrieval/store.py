"""Exact search for the nearest vectors among those whose outcome was known at the time of the question."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qml_plugin.errors import RetrievalError
from qml_plugin.records import FloatArray, IntArray
from qml_plugin.retrieval.blocks import Block
from qml_plugin.retrieval.filters import CODED, NO_BAR, Filters, Wanted
from qml_plugin.retrieval.kernels import Float32Array
from qml_plugin.retrieval.many import Strip, nearest_of_many
from qml_plugin.retrieval.nearest import Piece, nearest
from qml_plugin.retrieval.tiers import Tier

# For live use: a decision should be there before the price has moved.
LIVE_DEADLINE_S = 0.060

_AUDITED_OF = 100
_LANES = 16  # floats of a 512-bit register


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Answer of a search, nearest first.

    ``ids`` and ``distances`` have shape (n_hits,); distances are Euclidean, in scaled feature units. ``n_eligible`` is the
    number of rows the search could choose from; with fewer than k, or fewer that do not overlap, so many are returned
    and no more. ``coverage`` is the share of them that was looked at, 0..1: less than 1 only where a deadline struck.
    """

    ids: NDArray[Any]
    distances: FloatArray
    n_eligible: int
    coverage: float = 1.0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Audit:
    """Answers that a tier gave, those compared with the exact ones, and how many true neighbours these had and found."""

    n_answers: int
    n_audited: int
    n_true: int
    n_found: int

    @property
    def recall(self) -> float:
        """Share of the true neighbours found, NaN before the first comparison."""
        return self.n_found / self.n_true if self.n_true else float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class _Published:
    """What searches may read: blocks that never change, and the numbers of the words in their coded columns."""

    blocks: Mapping[tuple[str, str], Block]
    codes: Mapping[str, Mapping[str, int]]


class VectorStore:
    """Append-only vectors, one block for each symbol and timeframe, in order of the time their outcome became known.

    Any number of threads may search while others add: a search goes on with what was there when it began, and sees a
    batch whole or not at all.

    Parameters
    ----------
    dim : int, >= 1
        Length of a vector. Rows are padded with zeros to a multiple of 16, which changes no distance.
    scaler_id : str, optional
        Of the `Scaler` that all vectors come from. Where it is given, vectors of another one are refused.
    tier : {"exact", "float16", "ivf"}, default="exact"
        For blocks of more than a million rows. ``"float16"`` reads half the bytes and gives the same answers; ``"ivf"`` looks at a
        part of the rows and may miss neighbours, see `audit`. Both cost half as much memory again. Questions with
        filters other than symbol, timeframe and age are answered exactly.
    tier_from_rows : int, default=1_000_000
        Rows of a block that must be known at the time of a question for the tier to be used.

    Raises
    ------
    RetrievalError
        If `dim` is less than 1, or the tier is not known.

    Examples
    --------
    >>> store = VectorStore(dim=2)
    >>> store.add([[0.0, 1.0], [0.0, 3.0]], ids=["a", "b"], resolved_at=[10, 20], symbol="GOOG", timeframe="1d")
    >>> store.search([0.0, 2.5], as_of=20, k=1).ids
    array(['b'], dtype=object)
    >>> store.search([0.0, 2.5], as_of=19, k=5, symbol="GOOG").ids
    array(['a'], dtype=object)
    """

    def __init__(
        self, dim: int, *, scaler_id: str | None = None, tier: str = "exact", tier_from_rows: int = 1_000_000
    ) -> None:
        if dim < 1:
            raise RetrievalError(f"a store of vectors of length {dim} was asked for. A vector needs at least 1 value.")
        self.dim = dim
        self.scaler_id = scaler_id
        self._width = -(-dim // _LANES) * _LANES
        self._adding = threading.Lock()
        self._counting = threading.Lock()
        self._n_cut_short = 0
        self._tier = Tier(tier, tier_from_rows)
        self._audit = Audit(0, 0, 0, 0)
        self._ids: set[str] | set[int] = set()
        self._published = _Published({}, {name: {} for name in CODED})

    def __len__(self) -> int:
        return sum(block.n_rows for block in self._published.blocks.values())

    @property
    def n_cut_short(self) -> int:
        """Number of searches that a deadline ended before they had looked at all rows."""
        return self._n_cut_short

    @property
    def audit(self) -> Audit:
        """How the tier has done so far: one of a hundred of its answers is compared with the exact one."""
        return self._audit

    def add(
        self,
        vectors: ArrayLike,
        *,
        resolved_at: ArrayLike,
        ids: ArrayLike | None = None,
        symbol: ArrayLike = "",
        timeframe: ArrayLike = "",
        pattern_type: ArrayLike = "",
        regime: ArrayLike = "",
        scale: ArrayLike = "",
        side: ArrayLike = 0,
        quality: ArrayLike = np.nan,
        bar: ArrayLike = NO_BAR,
        scaler_id: str | None = None,
    ) -> None:
        """Append rows. All but `vectors` and `ids` may be one value for all rows.

        Parameters
        ----------
        vectors : ndarray of shape (n_new, dim) or (dim,), float32
            Finite values.
        resolved_at : int, or ndarray of shape (n_new,), UTC microseconds
            When the outcome of each row became known, in any order. Rows that come in order are added in place; one that
            is older than the newest of its block costs a copy of the block.
        ids : sequence of n_new str or int, optional
            Unlike those of all other rows; the number of the row by default.
        symbol, timeframe : str, or sequence of n_new str
            Rows that have both in common lie side by side.
        pattern_type, regime, scale : str, or sequence of n_new str
            Empty where it is not known.
        side : {+1, -1, 0}, or ndarray of shape (n_new,)
            0 where it is not known.
        quality : float, or ndarray of shape (n_new,)
            NaN where it is not known.
        bar : int, or ndarray of shape (n_new,)
            Position of the entry in the bars of its symbol and timeframe, for ``apart_bars``.
        scaler_id : str, optional
            Of the scaler that made the vectors.

        Point in time
        -------------
        A row is visible to searches with ``as_of >= resolved_at`` only.

        Raises
        ------
        RetrievalError
            If shapes do not fit, a value is not finite, an id is there already or of another kind than those that are,
            or the vectors are of another scaler. Nothing is then added.
        """
        self._refuse_other_scaler(scaler_id, "vectors")
        new = self._checked(np.atleast_2d(np.asarray(vectors)))
        n_new = len(new)
        columns: dict[str, NDArray[Any]] = {
            "vectors": self._padded(new),
            "resolved_at": _column("resolved_at", resolved_at, np.int64, n_new),
            "side": _column("side", side, np.int8, n_new),
            "quality": _column("quality", quality, np.float64, n_new),
            "bar": _column("bar", bar, np.int64, n_new),
        }
        words = {
            name: _column(name, value, np.object_, n_new)
            for name, value in (
                ("symbol", symbol),
                ("timeframe", timeframe),
                ("pattern_type", pattern_type),
                ("regime", regime),
                ("scale", scale),
            )
        }
        with self._adding:
            columns["ids"] = self._new_ids(ids, n_new)
            now = self._published
            codes = {name: dict(known) for name, known in now.codes.items()}
            for name in CODED:
                numbers = codes[name]
                found = [numbers.setdefault(word, len(numbers)) for word in words[name].tolist()]
                columns[name] = np.array(found, np.int32)
            blocks = dict(now.blocks)
            keys = _rows_of_blocks(words["symbol"], words["timeframe"])
            for key, rows in keys.items():
                part = {name: column[rows] for name, column in columns.items()} if len(keys) > 1 else columns
                if key not in blocks:
                    blocks[key] = Block(*key, {name: column[:0] for name, column in columns.items()}, 0)
                block = blocks[key].appended(part)
                blocks[key] = replace(block, segments=self._tier.extended(block.segments, block.column("vectors")))
            self._ids.update(columns["ids"].tolist())
            self._published = _Published(MappingProxyType(blocks), codes)

    def search(
        self,
        query: ArrayLike,
        *,
        as_of: int,
        k: int,
        scaler_id: str | None = None,
        deadline_s: float | None = None,
        **filters: Unpack[Filters],
    ) -> Hits:
        """The k rows nearest to `query` among those known at `as_of` that meet the filters.

        Parameters
        ----------
        query : ndarray of shape (dim,), float32
            Finite values, scaled like the rows.
        as_of : int, UTC microseconds
            The time of the question.
        k : int, >= 1
            Most rows to return.
        scaler_id : str, optional
            Of the scaler that made the query.
        deadline_s : float, seconds, optional
            For live use, such as `LIVE_DEADLINE_S`: rows are looked at from the newest to the oldest, in chunks, and when the
            next chunk would come too late the answer is that of the rows so far, with its ``coverage``. An answer then depends on
            the speed of the machine: leave it out in backtests.
        symbol, timeframe, pattern_type, regime, scale : str or collection of str, optional
            One of these.
        side : {+1, -1}, optional
        max_age : int, microseconds, or timedelta, optional
            Only rows with ``resolved_at >= as_of - max_age``.
        min_quality : float, optional
            Only rows of at least this quality; one that is not known is not.
        apart_bars : int, bars, optional
            Of rows of one symbol and timeframe that lie no more than this apart, the nearest counts and the others do
            not: overlapping neighbours are one neighbour.

        Returns
        -------
        Hits
            Exact: filtered before the choice, ordered by distance (float64) and then by id.

        Point in time
        -------------
        Reads rows with ``resolved_at <= as_of`` only.

        Raises
        ------
        RetrievalError
            If the query has another length or scaler or is not finite, `k` is less than 1, a filter is not known, or
            `apart_bars` is asked of rows whose `bar` is not known.

        Cost
        ----
        O(n_eligible * dim) time, one thread; where a filter names neither symbol nor timeframe, O(n_rows) more.
        """
        now, wanted = self._published, Wanted.of(filters)
        self._refuse_other_scaler(scaler_id, "a query")
        vector = self._padded(self._checked(np.asarray(query)[None]))[0]
        _refuse_no_neighbours(k)
        pieces = _pieces(now, wanted, as_of, self._tier)
        n_eligible = sum(map(len, pieces))
        found = nearest(pieces, vector, k, wanted.apart_bars, deadline_s)
        if deadline_s is None and any(piece.segment is not None for piece in pieces):
            self._compare(pieces, vector, k, wanted.apart_bars, found.ids)
        if found.n_scanned < n_eligible:
            with self._counting:
                self._n_cut_short += 1
        coverage = found.n_scanned / n_eligible if n_eligible else 1.0
        return Hits(found.ids, np.sqrt(found.squared), n_eligible, coverage)

    def search_many(
        self,
        queries: ArrayLike,
        *,
        as_of: Sequence[int] | IntArray,
        k: int,
        scaler_id: str | None = None,
        **filters: Unpack[Filters],
    ) -> list[Hits]:
        """The answers of `search` for each query at its own time, for a whole backtest at once.

        Parameters
        ----------
        queries : ndarray of shape (n_queries, dim), float32
            One query a row.
        as_of : sequence of n_queries int, UTC microseconds
            The time of each question.
        k : int, >= 1
            Most rows to return for each.
        scaler_id, **filters
            As for `search`, the same for all queries.

        Returns
        -------
        list of n_queries Hits
            The same as asking one by one, to the last bit.

        Point in time
        -------------
        Answer i reads rows with ``resolved_at <= as_of[i]`` only.

        Raises
        ------
        RetrievalError
            As `search`, and if the numbers of queries and times differ.

        Cost
        ----
        O(n_queries * n_eligible * dim) time, one thread, and O(n_eligible * dim) memory where rows are filtered.
        """
        now, wanted = self._published, Wanted.of(filters)
        self._refuse_other_scaler(scaler_id, "queries")
        vectors = np.asarray(queries)
        times = np.asarray(as_of, np.int64)
        if len(vectors) != len(times):
            raise RetrievalError(f"got {len(vectors)} queries and {len(times)} as_of. Each query needs its own time.")
        _refuse_no_neighbours(k)
        if len(times) == 0:
            return []
        order = np.argsort(times, kind="stable")
        ordered = self._padded(self._checked(vectors))[order]
        strips = _strips(now, wanted, times[order])
        n_eligible = sum((strip.high - strip.low for strip in strips), np.zeros(len(order), np.int64))
        if self._tier.name == "ivf" and any(strip.block.segments for strip in strips):
            return [
                self.search(query, as_of=at, k=k, scaler_id=scaler_id, **filters)
                for query, at in zip(vectors, times.tolist(), strict=True)
            ]
        answers = nearest_of_many(strips, ordered, k, wanted.apart_bars)
        hits: list[Hits | None] = [None] * len(order)
        for place, answer, query, at, n_rows in zip(
            order.tolist(), answers, ordered, times[order].tolist(), n_eligible.tolist(), strict=True
        ):
            found = answer or nearest(_pieces(now, wanted, at, self._tier), query, k, wanted.apart_bars, None)
            hits[place] = Hits(found.ids, np.sqrt(found.squared), n_rows)
        return [hit for hit in hits if hit is not None]

    def _compare(
        self, pieces: Sequence[Piece], query: Float32Array, k: int, apart_bars: int | None, ids: NDArray[Any]
    ) -> None:
        """Count an answer of the tier; of every hundredth, count the neighbours that it missed too."""
        with self._counting:
            before = self._audit
            self._audit = replace(before, n_answers=before.n_answers + 1)
        if before.n_answers % _AUDITED_OF:
            return
        exact = nearest([replace(piece, segment=None) for piece in pieces], query, k, apart_bars, None)
        n_found = len(set(ids.tolist()) & set(exact.ids.tolist()))
        with self._counting:
            now = self._audit
            self._audit = Audit(now.n_answers, now.n_audited + 1, now.n_true + len(exact.ids), now.n_found + n_found)

    def _new_ids(self, ids: ArrayLike | None, n_new: int) -> NDArray[Any]:
        """Ids of new rows, made sure that they are new."""
        n_rows = len(self._ids)
        found = _ids_of(np.arange(n_rows, n_rows + n_new) if ids is None else ids, n_new)
        texts = found.tolist()
        known = next(iter(self._ids), None)
        if n_new and known is not None and not isinstance(texts[0], type(known)):
            raise RetrievalError(
                f"id {texts[0]!r} is of another kind than {known!r}. All ids must be texts, or integers."
            )
        twice = next((text for text, count in Counter(texts).items() if count > 1 or text in self._ids), None)
        if twice is not None:
            raise RetrievalError(f"id {twice!r} is there already. Each row needs an id of its own; nothing was added.")
        return found

    def _refuse_other_scaler(self, scaler_id: str | None, what: str) -> None:
        if scaler_id != self.scaler_id:
            raise RetrievalError(
                f"{what} of scaler {_short(scaler_id)} came to a store of scaler {_short(self.scaler_id)}. Vectors of two "
                "scalers cannot be compared; scale the features with the scaler of the store, or build a new store."
            )

    def _checked(self, vectors: NDArray[Any]) -> Float32Array:
        """Vectors as float32 of the right length and finite."""
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise RetrievalError(
                f"vectors of shape {vectors.shape} refused: this store holds vectors of length {self.dim}. "
                "Scale the same features as the stored rows."
            )
        if not np.isfinite(vectors).all():
            row, column = np.argwhere(~np.isfinite(vectors))[0]
            raise RetrievalError(
                f"vector {row} has {vectors[row, column]} at position {column}. Distances need finite values; scale "
                "with Scaler, which fills what is missing."
            )
        return vectors

    def _padded(self, vectors: Float32Array) -> Float32Array:
        """Vectors at the width of the stored rows."""
        padded = np.zeros((len(vectors), self._width), np.float32)
        padded[:, : self.dim] = vectors
        return padded


def _pieces(now: _Published, wanted: Wanted, as_of: int, tier: Tier) -> list[Piece]:
    """The eligible rows of each block that has some."""
    pieces, moments = [], np.array([as_of], np.int64)
    for block in now.blocks.values():
        if not wanted.names_block(block):
            continue
        low, high = (int(bound[0]) for bound in wanted.bounds(block, moments))
        mask = wanted.mask(block, now.codes, slice(low, high))
        rows = None if mask is None else np.flatnonzero(mask) + low
        whole = Piece(block, low, high, rows)
        if not whole:
            continue
        _refuse_unknown_bars(block.columns["bar"][slice(low, high) if rows is None else rows], wanted, block)
        segments = tier.usable(block.segments, low, high) if rows is None else []
        pieces += [Piece(block, max(low, segment.first), segment.end, segment=segment) for segment in segments]
        rest = replace(whole, low=max(low, segments[-1].end)) if segments else whole
        if rest:
            pieces.append(rest)
    return pieces


def _strips(now: _Published, wanted: Wanted, as_of: IntArray) -> list[Strip]:
    """The rows of each block that some query may see, and the bounds of each query among them."""
    strips = []
    for block in now.blocks.values():
        if not wanted.names_block(block):
            continue
        low, high = wanted.bounds(block, as_of)
        first, end = int(low.min()), int(high.max())
        mask = wanted.mask(block, now.codes, slice(first, end))
        rows: IntArray | slice = slice(first, end) if mask is None else np.flatnonzero(mask) + first
        if not isinstance(rows, slice):
            low, high = rows.searchsorted(low), rows.searchsorted(high)
        else:
            low, high = low - first, high - first
        _refuse_unknown_bars(block.columns["bar"][rows], wanted, block)
        strips.append(Strip(block, rows, low, high))
    return strips


def _refuse_unknown_bars(bars: IntArray, wanted: Wanted, block: Block) -> None:
    if wanted.apart_bars is not None and (bars == NO_BAR).any():
        raise RetrievalError(
            f"apart_bars was asked of rows of {block.symbol!r} {block.timeframe!r} without a bar. Add rows with bar=, their "
            "position in the series."
        )


def _refuse_no_neighbours(k: int) -> None:
    if k < 1:
        raise RetrievalError(f"k = {k} neighbours were asked for. Ask for at least 1.")


def _column(name: str, value: ArrayLike, dtype: type[Any], n_rows: int) -> NDArray[Any]:
    """One value for each row; a single one stands for all."""
    found = np.asarray(value, dtype)
    if found.ndim == 0:
        return np.full(n_rows, found[()], dtype)
    if found.shape != (n_rows,):
        raise RetrievalError(f"got {n_rows} vectors and {len(found)} {name}. Each row needs both.")
    return found


def _ids_of(ids: ArrayLike, n_rows: int) -> NDArray[Any]:
    """Ids as texts or integers."""
    found = np.asarray(ids)
    if found.dtype.kind not in "iu":
        found = np.asarray(ids, np.object_)
        if strange := next((item for item in found.ravel().tolist() if not isinstance(item, str)), None):
            raise RetrievalError(f"id {strange!r} is neither a text nor an integer.")
    found = np.atleast_1d(found)
    if found.shape != (n_rows,):
        raise RetrievalError(f"got {n_rows} vectors and {len(found)} ids. Each row needs both.")
    return found if found.dtype == np.object_ else found.astype(np.int64)


def _rows_of_blocks(symbols: NDArray[Any], timeframes: NDArray[Any]) -> dict[tuple[str, str], IntArray]:
    """Rows of each symbol and timeframe."""
    rows: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(symbols.tolist(), timeframes.tolist(), strict=True)):
        rows.setdefault(key, []).append(row)
    return {key: np.array(found, np.int64) for key, found in rows.items()}


def _short(scaler_id: str | None) -> str:
    return "no id" if scaler_id is None else scaler_id[:12]
