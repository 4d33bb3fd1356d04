"""Landmark models: what was built from 1958 to 2026, of which family, and how large."""

import csv
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trivium.data.fetch import read
from trivium.data.files import LANDMARK_MODELS

FAMILIES = ("dense", "convolution", "recurrence", "attention", "mixed")
COLUMNS = (
    "model", "year", "family", "parameters", "multiply_adds", "examples", "example",
    "published_flops", "sources", "note",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LandmarkModels:
    """The table by columns, in order of the years; each has one entry for each of M models.

    names: the models. years: int32 [M], of the first publication. families: of `FAMILIES`; "mixed"
        joins two of them.
    parameters: float64 [M]. multiply_adds: float64 [M], products that one example takes forward;
        for language models the parameters that a token uses. examples: float64 [M], that training
        read, repetitions counted. units: what an example is, "image", "token" or "".
    published_flops: float64 [M], additions and multiplications of the whole training as a source
        states them. NaN wherever the sources give nothing that holds.
    sources: for each model the keys of its works in the book's `references.bib`. notes: what was
        counted, and how.
    """

    names: list[str]
    years: NDArray[np.int32]
    families: list[str]
    parameters: NDArray[np.float64]
    multiply_adds: NDArray[np.float64]
    examples: NDArray[np.float64]
    units: list[str]
    published_flops: NDArray[np.float64]
    sources: list[tuple[str, ...]]
    notes: list[str]


def landmark_models() -> LandmarkModels:
    """Landmark models from 1958 to 2026: year, family, size and training, with sources.

    The arrays are fresh at each call.

    Raises CorruptFileError (a ValueError) and DownloadError (an OSError) as `fetch.read` does.
    Source: the works that each row names; CC BY 4.0.
    """
    (file,) = LANDMARK_MODELS.files
    return parse_models(read(file).decode(), file.name)


def parse_models(text: str, name: str) -> LandmarkModels:
    """The table from comma-separated text with the header `COLUMNS`; an empty cell is unknown.

    name: the file, for the message. Raises ValueError naming file and line where the text departs
    from that form, a number is not positive, or a year is before the one above it.
    """
    lines = csv.reader(text.splitlines())
    header = tuple(next(lines, ()))
    if header != COLUMNS:
        raise ValueError(f"{name}, line 1: expected the header {','.join(COLUMNS)}.")
    rows: list[dict[str, str]] = []
    numbers: list[list[float]] = []
    for cells in lines:
        place = f"{name}, line {lines.line_num}"
        if len(cells) != len(COLUMNS):
            raise ValueError(f"{place}: expected {len(COLUMNS)} cells, found {len(cells)}.")
        row = dict(zip(COLUMNS, cells, strict=True))
        if row["family"] not in FAMILIES:
            raise ValueError(f"{place}: expected a family of {FAMILIES}, found {row['family']!r}.")
        if not row["model"] or not row["sources"].split():
            raise ValueError(f"{place}: expected a model and its sources.")
        if not row["year"].isdecimal() or (rows and int(row["year"]) < int(rows[-1]["year"])):
            raise ValueError(f"{place}: expected years in order, found {row['year']!r}.")
        numbers.append([
            _number(row[column], place, column)
            for column in ("parameters", "multiply_adds", "examples", "published_flops")
        ])  # fmt: skip
        rows.append(row)
    if not rows:
        raise ValueError(f"{name}: expected models below the header, found none.")
    parameters, multiply_adds, examples, published = np.array(numbers, np.float64).T.copy()
    return LandmarkModels(
        names=[row["model"] for row in rows],
        years=np.array([int(row["year"]) for row in rows], np.int32),
        families=[row["family"] for row in rows],
        parameters=parameters,
        multiply_adds=multiply_adds,
        examples=examples,
        units=[row["example"] for row in rows],
        published_flops=published,
        sources=[tuple(row["sources"].split()) for row in rows],
        notes=[row["note"] for row in rows],
    )


def _number(cell: str, place: str, column: str) -> float:
    """A positive number, or NaN for an empty cell."""
    if not cell:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{place}: expected a positive number in {column}, found {cell!r}.")
    return value
