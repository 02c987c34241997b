"""Shapes of the records that rooms pass to each other: a data set, what a COCO file lists, a row of the manifest.

Standard library only: the Snakefile imports modules that import this one.
"""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

Id = int | str  # of an image or a category in a COCO file


class DataSet(TypedDict):
    """A data set as `dataset_entry.resolve` returns it.

    Attributes:
        layout: "mvtec" (folders tell labels) or "coco".
        images: folder of the photographs; for mvtec the root.
        path: folder of the whole data set.
        annotations: a COCO file, a list of several, None for none.
        labels: path of labels.csv.
        category: name of the COCO category of the part; None for all.
        good: further names of folders of good photographs.
        links: folders elsewhere that links may lead to.
        found: whether the annotations were looked for.
        unlabelled: auto, judge or learn, see `unlabelled.learns_from_unlabelled`.
        feedback: table of what people said about verdicts, None where the entry names none.
        depth: bits that 16-bit files are read with.
        depth_given: whether the config names them.
    """

    layout: str
    images: str
    path: str | None
    annotations: str | list[str] | None
    labels: str | None
    category: str | None
    good: list[str]
    links: list[str]
    found: NotRequired[bool]
    unlabelled: NotRequired[str]
    feedback: NotRequired[str | None]
    depth: NotRequired[str | None]
    depth_given: NotRequired[bool]


class CocoImage(TypedDict):
    """An image in a COCO file; ``_folder``: where its file lies among the photographs, see `dataset.read_coco`."""

    id: Id
    file_name: Id
    width: NotRequired[float | None]
    height: NotRequired[float | None]
    _folder: NotRequired[str]


class CocoAnnotation(TypedDict):
    """An annotation in a COCO file; its ``segmentation`` may be malformed and is checked where it is decoded."""

    image_id: Id
    id: NotRequired[Id]
    category_id: NotRequired[Id | None]
    segmentation: NotRequired[object]
    bbox: NotRequired[Sequence[float]]
    area: NotRequired[float]
    iscrowd: NotRequired[int]


class CocoCategory(TypedDict, total=False):
    """A category in a COCO file."""

    id: Id | None
    name: str


class Coco(TypedDict):
    """What is read of a COCO file, see `dataset.read_coco`; ``notes``: what a file of another tool holds besides."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]
    notes: NotRequired[list[str]]


class Rle(TypedDict):
    """A mask as compressed run lengths; ``size`` is [height, width] in pixels."""

    size: list[int]
    counts: str


class CocoResult(TypedDict):
    """A damaged region as an entry of a COCO results file; ``bbox`` is [x, y, width, height] in pixels."""

    image_id: Id
    category_id: int
    bbox: list[int]
    score: float
    segmentation: Rle
    mark: NotRequired[str]


class ManifestRow(TypedDict):
    """A row of the manifest (tables.MANIFEST); label is "0" (good), "1" (bad) or "", text is "" where unknown."""

    image_id: str
    path: str
    sha256: str
    width: int
    height: int
    label: str
    defect_type: str
    group: str
    mask: str
    split: str
    mask_sha256: NotRequired[str]


class FolderLine(TypedDict):
    """What a folder was read as, for the report: its name, how many pictures, and what they are."""

    folder: str
    pictures: int
    read_as: str
