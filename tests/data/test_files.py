"""The embedded files are what the registry and data/README.md say they are."""

import gzip
import hashlib
import re
from pathlib import Path

import pytest

from trivium.data.files import (
    DATA_SETS,
    EFFICIENTNET_LITE0,
    KING_JAMES,
    LANDMARK_MODELS,
    TREE_CROWNS,
    UI_STRINGS,
)

OWN = [
    file
    for data_set in (LANDMARK_MODELS, KING_JAMES, EFFICIENTNET_LITE0, UI_STRINGS, TREE_CROWNS)
    for file in data_set.files
]
DATA = Path(__file__).parents[2] / "data"
README = (DATA / "README.md").read_text(encoding="utf-8")
FILES = [file for data_set in DATA_SETS for file in data_set.files]


def content_of(path):
    stored = path.read_bytes()
    return gzip.decompress(stored) if path.suffix == ".gz" else stored


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_embedded_file_has_the_registered_hash_and_size(file):
    content = content_of(DATA / file.name)
    assert hashlib.sha256(content).hexdigest() == file.sha256
    assert len(content) == file.size


def test_readme_lists_exactly_the_registered_files():
    rows = re.findall(r"^\| `([^`]+)` \| ([\d,]+) \| `([0-9a-f]{64})` \|$", README, re.MULTILINE)
    listed = {(name, int(size.replace(",", "")), sha256) for name, size, sha256 in rows}
    assert len(listed) == len(rows)
    assert listed == {(file.name, file.size, file.sha256) for file in FILES}


def test_every_file_in_the_folder_is_registered_or_says_something_about_them():
    found = {
        path.relative_to(DATA).as_posix()
        for path in DATA.rglob("*")
        if path.is_file() and path.name not in {"README.md", "LICENSE", ".gitattributes"}
    }
    assert found == {file.name for file in FILES}


@pytest.mark.parametrize("data_set", DATA_SETS, ids=lambda data_set: data_set.name)
def test_readme_names_source_and_citation_and_the_license_lies_beside_the_files(data_set):
    (section,) = (
        part for part in README.split("\n## ")[1:] if part.startswith(f"{data_set.name}\n")
    )
    words = " ".join(section.split())
    assert data_set.source in words
    assert data_set.citation in words
    named = {"CC-BY-4.0": "CC BY 4.0", "LicenseRef-public-domain": "public domain"}
    assert named.get(data_set.license, data_set.license) in words
    folder = Path(data_set.files[0].name).parent
    assert f"{folder}/LICENSE" in section
    license_text = (DATA / folder / "LICENSE").read_text(encoding="utf-8")
    granted = {
        "MIT": "Permission is hereby granted",
        "CC-BY-4.0": "licenses/by/4.0",
        "Apache-2.0": "Apache License",
        "LicenseRef-public-domain": "in the public domain",
        "MPL-2.0": "Mozilla Public License Version 2.0",
    }
    assert granted[data_set.license] in license_text


def test_git_converts_no_line_ending_of_the_files():
    attributes = (DATA / ".gitattributes").read_text(encoding="utf-8")
    for suffix in {Path(file.name).suffix for file in FILES}:
        assert re.search(rf"^\*{re.escape(suffix)} (binary|-text)$", attributes, re.MULTILINE)


def test_every_address_gives_the_file_or_an_archive():
    for file in FILES:
        # A file of the book's own has an address only where pip installed from a repository.
        assert file.addresses or file in OWN
        for address in file.addresses:
            name = Path(file.name).name
            assert address.endswith((".zip", ".tar.gz", name, name.removesuffix(".gz"))), address
