"""Landmark models: the table, its sources, and the form of the file."""

import dataclasses
import importlib.metadata
import json
import re
from pathlib import Path

import numpy as np
import pytest

from trivium.data import DownloadError, fetch, files, landmark_models
from trivium.data.landmark_models import COLUMNS, FAMILIES, parse_models

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data():
    return landmark_models()


def test_counts_types_and_order(data):
    assert len(data.names) == len(set(data.names)) >= 25
    assert data.years.dtype == np.int32
    assert (data.years[0], data.years[-1]) == (1958, 2026)
    assert (np.diff(data.years) >= 0).all()
    assert set(data.families) == set(FAMILIES)
    assert set(data.units) == {"", "image", "token"}
    for field in dataclasses.fields(data):
        assert len(getattr(data, field.name)) == len(data.names), field.name
    for column in (data.parameters, data.multiply_adds, data.examples, data.published_flops):
        assert column.dtype == np.float64
        assert (column[~np.isnan(column)] > 0).all()


def test_every_source_is_in_the_bibliography(data):
    works = set(re.findall(r"^@\w+\{([^,]+),", (ROOT / "references.bib").read_text(), re.MULTILINE))
    assert {key for keys in data.sources for key in keys} <= works


def test_figures_fit_each_other(data):
    at = data.names.index
    assert data.parameters[at("LeNet (zip codes)")] == 9760
    known = ~np.isnan(data.published_flops)
    estimate = 6 * data.multiply_adds * data.examples
    ratio = data.published_flops[known] / estimate[known]
    assert ((ratio > 0.4) & (ratio < 2.5)).all()
    counted = ~np.isnan(data.examples)
    assert not np.isnan(data.multiply_adds[counted]).any()
    assert all(data.units[i] for i in np.flatnonzero(counted))


def test_arrays_are_fresh_at_each_call(data):
    other = landmark_models()
    other.years[:] = 0
    other.parameters[:] = 0
    assert landmark_models().years[0] == data.years[0] == 1958


HEADER = ",".join(COLUMNS)
ROW = "a,1990,dense,1,2,3,token,4e5,key1990word,"


def test_empty_cells_are_unknown():
    table = parse_models(f"{HEADER}\n{ROW}\nb,1991,mixed,,,,,,k l,why", "x.csv")
    assert table.published_flops[0] == 4e5
    assert np.isnan(table.parameters[1])
    assert table.sources[1] == ("k", "l")
    assert table.notes == ["", "why"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.csv, line 1: expected the header model,year"),
        (HEADER.replace("note", "notes"), "x.csv, line 1: expected the header"),
        (HEADER, "x.csv: expected models below the header"),
        (f"{HEADER}\n{ROW},", "x.csv, line 2: expected 10 cells, found 11"),
        (f"{HEADER}\n{ROW}\n" + ROW.replace("dense", "none"), "line 3: expected a family"),
        (f"{HEADER}\n" + ROW.replace("a,", ",", 1), "line 2: expected a model and its sources"),
        (f"{HEADER}\n" + ROW.replace("key1990word", " "), "expected a model and its sources"),
        (f"{HEADER}\n{ROW}\n" + ROW.replace("1990", "1989"), "line 3: expected years in order"),
        (f"{HEADER}\n" + ROW.replace("1990", "soon"), "line 2: expected years in order"),
        (f"{HEADER}\n" + ROW.replace("4e5", "-1"), "a positive number in published_flops"),
        (f"{HEADER}\n" + ROW.replace("4e5", "nan"), "a positive number in published_flops"),
        (f"{HEADER}\n" + ROW.replace(",1,", ",many,"), "a positive number in parameters"),
    ],
)
def test_text_of_another_form_is_refused_with_its_line(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_models(text, "x.csv")


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (
            {"url": "https://github.com/a/b.git", "vcs_info": {"vcs": "git", "commit_id": "c0"}},
            ("https://raw.githubusercontent.com/a/b/c0/data/x/y.csv",),
        ),
        ({"url": "file:///a/b", "dir_info": {"editable": True}}, ()),
        (None, ()),
    ],
)
def test_the_address_is_that_of_the_repository_installed_from(monkeypatch, origin, expected):
    class Installed:
        def read_text(self, name):
            return json.dumps(origin) if origin and name == "direct_url.json" else None

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed())
    assert files.own("x/y.csv") == expected


def test_without_a_repository_the_error_says_where_to_put_the_file(monkeypatch, tmp_path):
    monkeypatch.setenv("TRIVIUM_DATA", str(tmp_path))
    monkeypatch.setattr(fetch, "_checkout_folder", lambda: None)
    file = dataclasses.replace(files.LANDMARK_MODELS.files[0], addresses=())
    with pytest.raises(DownloadError, match="from a clone into"):
        fetch.read(file)
    path = tmp_path / file.name
    path.parent.mkdir()
    path.write_bytes((ROOT / "data" / file.name).read_bytes())
    assert len(fetch.read(file)) == file.size
