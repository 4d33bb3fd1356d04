"""The King James Bible by characters: counts, split, and the form of the file."""

import numpy as np
import pytest

from trivium.data import king_james
from trivium.data.king_james import parse_verses


@pytest.fixture(scope="module")
def bible():
    return king_james()


def test_counts_types_and_alphabet(bible):
    parts = (bible.train, bible.validation, bible.test)
    assert [len(part) for part in parts] == [3_973_661, 73_992, 90_197]
    assert all(part.dtype == np.int32 and part.max() < 63 for part in parts)
    assert len(bible.characters) == 63
    assert list(bible.characters) == sorted(bible.characters)
    # One verse a line: 31,102 of them.
    lines = [int((part == bible.characters.index("\n")).sum()) for part in parts]
    assert lines == [31_102 - 2 * 622, 622, 622]


def test_split_is_by_position(bible):
    assert bible.decode(bible.train[:26]) == "In the beginning God creat"
    assert bible.decode(bible.test[:12]) == "Simon Peter,"
    assert bible.decode(bible.test[-6:]) == "Amen.\n"


def test_encode_and_decode_are_inverse(bible):
    text = "And God said, Let there be light: and there was light.\n"
    assert bible.decode(bible.encode(text)) == text
    with pytest.raises(ValueError, match=r"text: expected characters of .*received '7'"):
        bible.encode("Psalm 7")
    for wrong in ([63], [-1], [[1]], [0.5]):
        with pytest.raises(ValueError, match="ids: expected integers"):
            bible.decode(wrong)


def test_arrays_are_fresh_at_each_call(bible):
    other = king_james()
    other.test[:] = 0
    assert bible.test.max() > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "x: expected verses"), ("Ge1:1 In\nGe1:2", "x, line 2: expected a reference")],
)
def test_text_of_another_form_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_verses(text, "x")


def test_references_are_left_out():
    assert parse_verses("Ge1:1 In the\n2Sm3:4 And", "x") == ["In the", "And"]
