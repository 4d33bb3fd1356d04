"""Adult: persons of a United States survey of 1994, and whether they earned over $50,000."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trivium.data.fetch import read
from trivium.data.files import ADULT

MISSING = "?"
CLASSES = ("<=50K", ">50K")
NUMBERS = ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")
# The values that the set's own description lists, with its spelling; "?" where it occurs.
VOCABULARIES = {
    "workclass": (
        "Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov", "Local-gov", "State-gov",
        "Without-pay", "Never-worked", MISSING,
    ),
    "education": (
        "Preschool", "1st-4th", "5th-6th", "7th-8th", "9th", "10th", "11th", "12th", "HS-grad",
        "Some-college", "Assoc-voc", "Assoc-acdm", "Bachelors", "Masters", "Prof-school",
        "Doctorate",
    ),
    "marital-status": (
        "Married-civ-spouse", "Divorced", "Never-married", "Separated", "Widowed",
        "Married-spouse-absent", "Married-AF-spouse",
    ),
    "occupation": (
        "Tech-support", "Craft-repair", "Other-service", "Sales", "Exec-managerial",
        "Prof-specialty", "Handlers-cleaners", "Machine-op-inspct", "Adm-clerical",
        "Farming-fishing", "Transport-moving", "Priv-house-serv", "Protective-serv",
        "Armed-Forces", MISSING,
    ),
    "relationship": (
        "Wife", "Own-child", "Husband", "Not-in-family", "Other-relative", "Unmarried",
    ),
    "race": ("White", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other", "Black"),
    "sex": ("Female", "Male"),
    "native-country": (
        "United-States", "Cambodia", "England", "Puerto-Rico", "Canada", "Germany",
        "Outlying-US(Guam-USVI-etc)", "India", "Japan", "Greece", "South", "China", "Cuba", "Iran",
        "Honduras", "Philippines", "Italy", "Poland", "Jamaica", "Vietnam", "Mexico", "Portugal",
        "Ireland", "France", "Dominican-Republic", "Laos", "Ecuador", "Taiwan", "Haiti",
        "Columbia", "Hungary", "Guatemala", "Nicaragua", "Scotland", "Thailand", "Yugoslavia",
        "El-Salvador", "Trinadad&Tobago", "Peru", "Hong", "Holand-Netherlands", MISSING,
    ),
}  # fmt: skip
# The columns of the file, in order; the class follows.
COLUMNS = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation",
    "relationship", "race", "sex", "capital-gain", "capital-loss", "hours-per-week",
    "native-country",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class AdultRows:
    """Persons, by columns: each array has one entry for each of N rows of the file, in its order.

    numbers: float32 [N] for each name in `NUMBERS`; age in years, education in steps from 1 to 16,
        capital gain and loss in dollars a year, work in hours a week.
    codes: int32 [N] for each name in `VOCABULARIES`; `VOCABULARIES[name][code]` is the value.
        "sex" and "race" are here, like any other column.
    labels: int32 [N], 1 where the person's income is over $50,000.
    weights: float32 [N], `fnlwgt`: how many people of the population the row stands for, as the
        survey estimates it. A property of the survey, not of the person.
    """

    numbers: dict[str, NDArray[np.float32]]
    codes: dict[str, NDArray[np.int32]]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32]

    def complete(self) -> NDArray[np.bool_]:
        """Whether nothing about the person is missing, bool [N]."""
        known = np.ones(len(self.labels), np.bool_)
        for name, values in VOCABULARIES.items():
            if MISSING in values:
                known &= self.codes[name] != values.index(MISSING)
        return known


@dataclass(frozen=True, eq=False)
class Adult:
    """Adult as its donors split it.

    train: 32,561 rows; test: 16,281 rows.
    vocabularies: the values of each categorical column; `vocabularies[name][code]`.
    classes: the two names; `classes[label]`.
    """

    train: AdultRows
    test: AdultRows
    vocabularies: dict[str, tuple[str, ...]]
    classes: tuple[str, ...]


def adult() -> Adult:
    """Adult: 32,561 + 16,281 persons of a survey of 1994, and who of them earned over $50,000.

    Nothing is left out or filled in: where the file has "?" (work class, occupation and country, in
    3,620 of 48,842 rows), the code is that of the value "?"; `rows.complete()` finds the others.
    Rows that occur twice are kept. The arrays are fresh at each call.

    Raises CorruptFileError (a ValueError) and DownloadError (an OSError) as `fetch.read` does.
    Source: Becker and Kohavi 1996, UCI Machine Learning Repository; CC BY 4.0.
    """
    train, test = (parse_adult(read(file).decode(), file.name) for file in ADULT.files)
    return Adult(train=train, test=test, vocabularies=dict(VOCABULARIES), classes=CLASSES)


def parse_adult(text: str, name: str) -> AdultRows:
    """Rows of 14 values and a class with ", " between them; a class may end in a point.

    name: the file, for the message. Empty lines, and a line that begins with "|" (the first of the
    test file), are no rows. Raises ValueError naming file, line and column where the text departs
    from that form.
    """
    rows: list[list[str]] = []
    places: list[int] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or line.startswith("|"):
            continue
        cells = line.split(", ")
        if len(cells) != len(COLUMNS) + 1:
            raise ValueError(
                f"{name}, line {number}: expected {len(COLUMNS)} values and a class with ', ' "
                f"between them, found {len(cells)}."
            )
        rows.append(cells)
        places.append(number)
    if not rows:
        raise ValueError(f"{name}: expected rows, found none.")
    *columns, classes = zip(*rows, strict=True)
    cells_of = dict(zip(COLUMNS, columns, strict=True))

    def codes(column: str, cells: tuple[str, ...], values: tuple[str, ...]) -> NDArray[np.int32]:
        code = {value: index for index, value in enumerate(values)}
        try:
            return np.array([code[cell] for cell in cells], np.int32)
        except KeyError as error:
            place = places[cells.index(error.args[0])]
            raise ValueError(
                f"{name}, line {place}: expected a value of {column} among {list(values)}, "
                f"found {error.args[0]!r}."
            ) from None

    def numbers(column: str) -> NDArray[np.float32]:
        for cell, place in zip(cells_of[column], places, strict=True):
            if not cell.isdecimal():
                raise ValueError(
                    f"{name}, line {place}: expected a whole number in {column}, found {cell!r}."
                )
        return np.array(cells_of[column], np.float32)

    return AdultRows(
        numbers={column: numbers(column) for column in NUMBERS},
        codes={
            column: codes(column, cells_of[column], values)
            for column, values in VOCABULARIES.items()
        },
        labels=codes("the class", tuple(cell.removesuffix(".") for cell in classes), CLASSES),
        weights=numbers("fnlwgt"),
    )
