"""Tree crowns: photographs of forests from the air, with a box around each crown."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trivium.data.fetch import read
from trivium.data.files import TREE_CROWNS

COLUMNS = ("photograph", "y0", "x0", "y1", "x1")


class Photograph(NamedTuple):
    """A photograph from straight above, 0.1 m a pixel, and the tree crowns on it.

    name: the site and the place there. image: float32 [H, W, 3], red, green and blue in [0, 1].
    boxes: float32 [M, 4], around each crown (y0, x0, y1, x1) in pixels. y0 and x0 are the first row
        and column, y1 and x1 come after the last (exclusive), so that y1 - y0 is the height.
    """

    name: str
    image: NDArray[np.float32]
    boxes: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TreeCrowns:
    """Four photographs of three sites: two of Yellowstone, one of Florida, one of California."""

    photographs: tuple[Photograph, ...]


def tree_crowns() -> TreeCrowns:
    """Tree crowns on four photographs from the air: 156, 279, 61 and 37 boxes.

    People drew the boxes on the photographs, around every standing tree they saw, living or dead.
    Boxes overlap where crowns do, and end where the photograph does. The photographs differ in
    size: [1152, 1024, 3], [1035, 1249, 3] and twice [400, 400, 3]. Enough to see a detector on real
    pixels, not to rank detectors. The arrays are fresh at each call; boxes are the same everywhere,
    images the same to a rounding of the JPEG decoder.

    Raises CorruptFileError (a ValueError) and DownloadError (an OSError) as `fetch.read` does.
    Source: National Ecological Observatory Network, and the authors of DeepForest, Weinstein et al.
    2020; CC BY 4.0.
    """
    *pictures, table = TREE_CROWNS.files
    images = {PurePosixPath(file.name).stem: _decode(read(file)) for file in pictures}
    sizes = {name: image.shape[:2] for name, image in images.items()}
    boxes = parse_boxes(read(table).decode(), table.name, sizes)
    return TreeCrowns(tuple(Photograph(name, images[name], boxes[name]) for name in images))


def parse_boxes(
    text: str, name: str, sizes: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[np.float32]]:
    """Boxes [M, 4] of each photograph from comma-separated text with the header `COLUMNS`.

    name: the file, for the message. sizes: height and width of each photograph. Raises ValueError
    naming file and line where the text departs from that form, or a box is empty or not wholly on
    its photograph, and naming the file where a photograph has no box.
    """
    lines = csv.reader(text.splitlines())
    header = tuple(next(lines, ()))
    if header != COLUMNS:
        raise ValueError(f"{name}, line 1: expected the header {','.join(COLUMNS)}.")
    found: dict[str, list[list[int]]] = {photograph: [] for photograph in sizes}
    for cells in lines:
        place = f"{name}, line {lines.line_num}"
        if len(cells) != len(COLUMNS):
            raise ValueError(f"{place}: expected {len(COLUMNS)} cells, found {len(cells)}.")
        photograph, *numbers = cells
        if photograph not in sizes:
            raise ValueError(
                f"{place}: expected a photograph of {list(sizes)}, found {photograph!r}."
            )
        if not all(cell.isdecimal() for cell in numbers):
            raise ValueError(f"{place}: expected whole numbers of pixels, found {numbers}.")
        y0, x0, y1, x1 = (int(cell) for cell in numbers)
        height, width = sizes[photograph]
        if not (y0 < y1 <= height and x0 < x1 <= width):
            raise ValueError(
                f"{place}: expected y0 < y1 <= {height} and x0 < x1 <= {width}, found "
                f"({y0}, {x0}, {y1}, {x1})."
            )
        found[photograph].append([y0, x0, y1, x1])
    for photograph, boxes in found.items():
        if not boxes:
            raise ValueError(f"{name}: expected boxes of {photograph}, found none.")
    return {photograph: np.array(boxes, np.float32) for photograph, boxes in found.items()}


def _decode(stored: bytes) -> NDArray[np.float32]:
    """Pixels [H, W, 3] in [0, 1] of a JPEG file's bytes."""
    from PIL import Image

    with Image.open(io.BytesIO(stored)) as picture:
        pixels: NDArray[np.float32] = np.asarray(picture.convert("RGB")).astype(np.float32)
    pixels /= 255
    return pixels
