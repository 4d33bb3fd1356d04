"""Which examples form a batch, and how wide it is padded.

Everything is decided on the host from (lengths, batch size, seed, epoch) alone, so a resumed run
sees the batches that an uninterrupted one would have seen.
"""

from typing import NamedTuple

import numpy as np

# Above this many distinct lengths the widths are chosen among as many quantiles: the search grows
# with the square, and a long tail of lengths must not cost minutes.
_CANDIDATES = 512


class Order(NamedTuple):
    """The batches of one pass.

    rows: [steps, batch] int32, the example in each place; a place that only fills up a batch holds
    ~row (negative), a real example that counts with weight zero.
    widths: the padded length of each batch, or None where inputs are one array.
    """

    rows: np.ndarray
    widths: list


def bucket_widths(lengths, buckets) -> np.ndarray:
    """The at most `buckets` widths, ascending, that pad the fewest steps in all.

    lengths: [N] integers. Each sequence is padded to the smallest width that holds it; the largest
    width is the longest sequence's length, the smallest at least 1. Exact for up to 512 distinct
    lengths, by dynamic programming.
    """
    lengths = np.maximum(lengths, 1)
    candidates = np.unique(lengths)
    if len(candidates) > _CANDIDATES:
        quantiles = np.linspace(0, 1, _CANDIDATES)
        candidates = np.unique(np.quantile(lengths, quantiles, method="higher"))
    # fits[i]: how many sequences fit the i narrowest candidates; cost[i]: the steps these fill.
    fits = np.searchsorted(np.sort(lengths), candidates, side="right")
    fits = np.concatenate([[0], fits])
    first, last = np.arange(len(fits))[:, None], np.arange(1, len(fits))[None, :]
    # group[i, j]: the steps filled by the sequences that fit candidate j but not candidate i.
    group = np.where(first < last, (fits[1:] - fits[:, None]) * candidates, np.inf)
    cost, before = np.concatenate([[0], group[0]]), [np.zeros(len(fits), int)]
    for _ in range(min(buckets, len(candidates)) - 1):
        total = cost[:, None] + group
        before.append(np.concatenate([[0], total.argmin(axis=0)]))
        cost = np.concatenate([[0], total.min(axis=0)])
    widths, end = [], len(candidates)
    for choice in reversed(before):
        if end:
            widths.append(int(candidates[end - 1]))
            end = int(choice[end])
    return np.array(widths[::-1])


def shuffled(count, batch_size, *, lengths=None, widths=None, seed=0, epoch=0) -> Order:
    """The batches of a training epoch, a function of its arguments alone.

    Arrays: a random permutation cut into batches. Sequences: each bucket is shuffled and cut;
    what is left over joins the next wider bucket, so that an epoch has ceil(N / batch) steps and
    one batch at most is filled up; then the batches are visited in random order.
    """
    random = np.random.default_rng([seed, epoch])
    if lengths is None:
        rows = _fill(random.permutation(count), batch_size)
        return Order(rows, [None] * len(rows))
    bucket = np.searchsorted(widths, lengths)
    parts, padded, left = [], [], np.zeros(0, np.int64)
    for k, width in enumerate(widths):
        rows = random.permutation(np.concatenate([left, np.flatnonzero(bucket == k)]))
        whole = len(rows) if k == len(widths) - 1 else len(rows) - len(rows) % batch_size
        rows, left = _fill(rows[:whole], batch_size), rows[whole:]
        parts.append(rows)
        padded += [int(width)] * len(rows)
    visit = random.permutation(len(padded))
    return Order(np.concatenate(parts)[visit], [padded[i] for i in visit])


def in_order(count, batch_size, *, lengths=None, widths=None) -> Order:
    """The batches of an evaluation: as stored, or from the shortest sequence to the longest."""
    if lengths is None:
        rows = _fill(np.arange(count), batch_size)
        return Order(rows, [None] * len(rows))
    rows = _fill(np.argsort(lengths, kind="stable"), batch_size)
    longest = np.asarray(lengths)[real(rows)].max(axis=1)
    return Order(rows, [int(widths[i]) for i in np.searchsorted(widths, longest)])


def real(rows):
    """The example in each place, whether it counts or fills up."""
    return np.where(rows < 0, ~rows, rows)


def same_width(widths, begin, limit) -> int:
    """Where the run of batches of one width ends that begins at `begin`, at most `limit`."""
    end = begin + 1
    while end < min(limit, len(widths)) and widths[end] == widths[begin]:
        end += 1
    return end


def _fill(rows, batch_size):
    """Cut rows into batches [steps, batch]; ~row fills the last one up.

    Fillers are other rows rather than one row repeated or zeros: they count nothing in loss and
    metric, but a layer that looks across the batch (batch normalization) sees real examples.
    """
    missing = -len(rows) % batch_size
    if missing:
        rows = np.concatenate([rows, ~np.resize(rows, missing)])
    return rows.reshape(-1, batch_size).astype(np.int32)
