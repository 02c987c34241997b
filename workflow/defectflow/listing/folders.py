"""Labels and splits from the folders of a data set, and which pictures are masks of others.

Standard library only: the Snakefile imports this module through ``preflight``.
"""

import difflib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain

from defectflow.core.counted import counted
from defectflow.core.records import DataSet, FolderLine
from defectflow.listing.image_names import is_image, scan
from defectflow.listing.links import follower, within

# Names of folders in the form of `plain`: lower case, without spaces and punctuation.
GOOD = {"good", "ok", "normal", "pass", "io", "goods", "defectfree"}
BAD = {
    "bad", "notgood", "nogood", "ng", "nok", "notok", "nio", "fail", "reject", "abnormal",
    "defect", "defects", "defective", "anomaly", "anomalies", "anomalous",
}  # fmt: skip
SIDES = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip
TRUTH = {"groundtruth", "gt"}
MASKS = {"masks", "mask", "labels", "annotations"}  # only where the names are those of photographs
PICTURES = {"images", "image", "img", "imgs", "photos", "photographs", "rgb"}  # beside a folder of masks
NOT_KNOWN = {"unlabelled", "unlabeled", "unknown", "unsorted", "unchecked"}  # reported if read as a kind of defect
NOT = {"not", "no", "non", "un", "n"}
MASK_NAME = re.compile(r"(.+)[_-](?:mask|gt|ground_truth)", re.IGNORECASE)

Key = tuple[str, ...]


def plain(name: str) -> str:
    """A folder's name in lower case without spaces and punctuation, to compare with the names above."""
    return re.sub(r"[\W_]", "", name.casefold())


def good_names(good: Iterable[str] | None) -> set[str]:
    """Names of folders that hold good photographs: GOOD and what the config calls `good`."""
    return GOOD | {plain(name) for name in good or ()}


def is_nearly_good(folder: str, good: Iterable[str] = GOOD) -> bool:
    """Whether a folder's name looks like one of good photographs without being one: good_2, OK images, goood."""
    words = [word for word in re.split(r"[\W\d_]+", folder.casefold()) if word]
    if not words or NOT & set(words):
        return False
    near = difflib.get_close_matches(plain(folder), [name for name in good if len(name) > 3], 1, 0.82)
    return bool(near) or any(word in good or word.removesuffix("s") in good for word in words)


def tells_labels(root: str | os.PathLike[str] | None, good: Iterable[str] = (), labels: str | None = None) -> bool:
    """Whether the folders below ``root`` say which photographs are good: train/good, test/ok, or good/ alone.

    With a labels.csv, folders outside of train and test do not count, unless ``good`` (of the config) names one.
    """
    names = good_names(good)
    tops = subfolders(root)
    for top, path in tops.items():
        if plain(top) in SIDES and any(plain(name) in names for name in subfolders(path)):
            return True
    return (not labels or bool(good)) and any(plain(top) in names for top in tops)


def subfolders(path: str | os.PathLike[str] | None) -> dict[str, str]:
    """{name: path} of the folders in a folder, without hidden ones; empty if the folder does not exist."""
    try:
        with os.scandir(os.fspath(path or os.devnull)) as entries:
            found = {one.name: one.path for one in entries if one.is_dir() and not one.name.startswith(".")}
    except OSError:
        return {}
    return dict(sorted(found.items()))


class Folders:
    """How the folders of a data set are read.

    Args:
        resolved: what `preflight.resolve` returned.
        keep: keep the names of all files in memory, so that the disk is searched only once.

    Attributes:
        fixed: whether they say which photographs train and which are judged.
        links: {relative name of a link to a folder that is not followed: why: outside, circle or read}.
        json: names of the JSON files among the photographs.
    """

    def __init__(self, resolved: DataSet, keep: bool = False):
        self.root = str(resolved["images"])
        self._path = resolved.get("path")
        self._good = good_names(resolved.get("good"))
        self.by_folder = resolved["layout"] == "mvtec"
        tops = subfolders(self.root) if self.by_folder else {}
        sides = {SIDES[plain(top)] for top in tops if plain(top) in SIDES}
        good = (sub for top, path in tops.items() if plain(top) in SIDES for sub in subfolders(path))
        self._splits = any(plain(sub) in self._good for sub in good)
        # If there is no training side, or nothing but good training photographs, photographs are held out in turns.
        learned = [sub for top, path in tops.items() if SIDES.get(plain(top)) == "train" for sub in subfolders(path)]
        only_good = all(plain(sub) in self._good | TRUTH | MASKS for sub in learned)
        self.fixed = self._splits and "train" in sides and (len(sides) > 1 or not only_good)
        self._reason = follower(resolved, self._is_read)
        self.links: dict[str, str] = {}
        self._linked: set[str] = set()  # folders that a link leads to, which is followed
        self.json: list[str] = []
        self._others: Counter[str] = Counter()  # pictures in folders that are not read
        self._masks: set[str] = set()
        self._doubtful: dict[str, tuple[int, int]] = {}  # folders of masks or not: pictures, partners
        self._by_key: dict[Key, str] = {}
        self._folder_by_key: dict[Key, str] = {}
        self._shared: set[str] = set()  # masks whose name fits several photographs
        self._names = [name for name, _ in self.walk()] if keep else None
        self._find_masks()

    def walk(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield (relative name, directory entry) of all files; links that may be followed are."""
        self.links = {}

        def enter(path: str) -> bool:
            if reason := self._reason(path):
                self.links[os.path.relpath(path, self.root)] = reason
            else:
                self._linked.add(os.path.realpath(path))
            return not reason

        return ((name, entry) for name, entry in scan(self.root, enter) if name not in self.links)

    def photographs(self) -> Iterator[str]:
        """Yield the names of the photographs."""
        return (name for name in self._all() if self._belongs(name))

    def row(self, name: str) -> dict[str, str]:
        """Label, defect type, split and mask (a path) by the folder of a photograph; {} if the folder says nothing."""
        if not self.by_folder:
            return {}
        side, kinds = self._place(name)
        kind = plain(kinds[0]) if kinds else ""
        row = {"split": side.replace("val", "test") if self.fixed else "", "label": ""}
        if kind in self._good:
            row["label"] = "0"
        elif kind in BAD or (kind and self._splits):
            below = [folder for folder in kinds[1:] if plain(folder) not in PICTURES]
            row |= {"label": "1", "defect_type": "".join(below[:1]) if kind in BAD else kinds[0]}
            row["mask"] = self._mask_of(name)
        return row

    def report(self) -> tuple[list[FolderLine], list[tuple[str, str, str]]]:
        """How each folder was read, and notices for the reader of the results.

        Returns:
            a list of {folder, pictures, read_as}, and (folder, text, figure) as `dataset.Notice` takes them.
        """
        counts: Counter[tuple[str, str, str, str]] = Counter()
        free = set(self._masks) if self.by_folder else set()
        for name in self.photographs() if self.by_folder else ():
            row = self.row(name)
            free.discard(self._mask_like(name) or "")
            folder = "/".join(name.split("/")[:-1][: 1 + self._splits]) or "."
            counts[folder, self._place(name)[0], row["label"], row.get("defect_type", "")] += 1
        lines: list[FolderLine] = []
        told: list[tuple[str, str, str]] = []
        for (folder, side, label, kind), count in sorted(counts.items()):
            part = ("to learn from" if side == "train" else "held out") if self.fixed else ""
            what = {"0": "good", "1": f"bad, {kind}" if kind else "bad", "": "unlabelled"}[label]
            lines.append({"folder": folder, "pictures": count, "read_as": ", ".join(filter(None, (what, part)))})
            if side == "val" and self.fixed:
                held = counted(count, "photograph")
                text = f"{held} held out like those of test/: judged, nothing is learned from them"
                told.append((folder, text, "verdicts"))
            if (
                label == "1"
                and kind not in ("", *BAD)
                and (plain(kind) in NOT_KNOWN or is_nearly_good(kind, self._good))
            ):
                text = f"{counted(count, 'photograph')} read as a kind of defect, {kind} (if good: name the folder "
                text += "under `good:` in the entry of the data set; else move or rename it)"
                told.append((folder, text, "verdicts"))
            if not label:
                remedy = (
                    f"move good ones into {folder}/good" if side else "good ones belong into good, others into bad/KIND"
                )
                what = counted(count, "photograph")
                text = f"{what} unlabelled: no folder says which are good ({remedy})"
                told.append(("top folder" if folder == "." else folder, text, "verdicts"))
        masks = Counter(mask_folder(name) or name.rpartition("/")[0] or "." for name in self._masks)
        lines += [{"folder": folder, "pictures": count, "read_as": "masks"} for folder, count in sorted(masks.items())]
        for folder, count in sorted(self._others.items()):
            why = "the name is neither a split (train, test, val) nor ground truth" if folder else "beside train/"
            told.append((folder or ".", f"{counted(count, 'picture')} not read: {why} (move or rename it)", "verdicts"))
        for folder, (count, fits) in sorted(self._doubtful.items()):
            what = counted(count, "picture")
            text = f"{what} read as photographs: {fits} of them with the name of another one, as masks have"
            told.append((folder, text, "verdicts"))
        for folder, count in sorted(Counter(name.rpartition("/")[0] for name in free).items()):
            text = f"{counted(count, 'mask')} without a photograph that fits (name folders and files alike)"
            told.append((folder, text, "pixels"))
        for mask in sorted(self._shared):
            text = "not used: its name fits several photographs (put it into a folder named as theirs)"
            told.append((mask, text, "pixels"))
        return lines, told

    def unused_masks(self, used: Iterable[str]) -> list[tuple[str, str, str]]:
        """Notices on masks among the photographs, by folder, of which none is ``used`` (paths).

        For folders without labels, in the form of `report`. Folders called ground truth need no notice.
        """
        known = {os.path.normpath(path) for path in used}
        free = [name for name in self._masks if os.path.normpath(os.path.join(self.root, name)) not in known]
        counts = Counter(mask_folder(name) or name.rpartition("/")[0] or "." for name in free)
        text = "pictures have the names of photographs and are taken for their masks: not inspected, and used as masks "
        text += "of defects only where column `mask` of labels.csv names them"
        return [
            (folder, f"{count} {text}", "")
            for folder, count in sorted(counts.items())
            if not self.by_folder and plain(folder.rpartition("/")[2]) not in TRUTH
        ]

    def silent(self) -> list[str]:
        """Folders called good or bad in a data set whose labels come from labels.csv instead."""
        return [] if self.by_folder else [top for top in subfolders(self.root) if plain(top) in self._good | BAD]

    def is_good(self, folder: str) -> bool:
        """Whether a folder of this name holds good photographs."""
        return plain(folder) in self._good

    def _all(self) -> Iterable[str]:
        return (name for name, _ in self.walk()) if self._names is None else self._names

    def _belongs(self, name: str) -> bool:
        return is_image(name) and name not in self._masks and self._is_read(name)

    def _is_read(self, name: str) -> bool:
        return not self._splits or plain(name.split("/")[0]) in SIDES

    def _place(self, name: str) -> tuple[str, list[str]]:
        """Side ("" without) and the folders below it."""
        folders = name.split("/")[:-1]
        return (SIDES[plain(folders[0])], folders[1:]) if self._splits else ("", folders)

    def _find_masks(self) -> None:
        """Find the pictures that are masks: in a ground-truth folder, or with the names of photographs."""
        unread: list[str] = []
        suspects: defaultdict[str, list[str]] = defaultdict(list)  # by folder; "": those recognised by their own name
        for name in chain(self._all(), self._beside()):
            if not is_image(name):
                if name.lower().endswith(".json"):
                    self.json.append(name)
            elif (folder := mask_folder(name)) is not None:
                suspects[folder].append(name)
            elif not self._is_read(name):
                unread.append(name)
        if not suspects:
            return self._pass_over(unread)
        wanted = {_key(name) for listed in suspects.values() for name in listed}
        lengths = {len(key) for key in wanted}
        partners: set[Key] = set()
        for name in self._all():
            if is_image(name) and mask_folder(name) is None:
                partners.update(part for key in _photo_keys(name) for n in lengths if (part := key[-n:]) in wanted)
        for folder, listed in suspects.items():
            fits, kind = [name for name in listed if _key(name) in partners], plain(folder.rpartition("/")[2])
            if not folder:  # a_mask.png lies beside a.png
                self._masks.update(fits)
            elif kind in TRUTH or 2 * len(fits) >= len(listed):
                self._masks.update(listed)
            elif self._is_read(folder) and (kind in ("mask", "masks") or fits):
                self._doubtful[folder] = len(listed), len(fits)
        more = (name for listed in suspects.values() for name in listed if not self._is_read(name))
        self._pass_over(chain(unread, (name for name in more if name not in self._masks)))
        for name in sorted(self._masks, key=lambda name: (MASK_NAME.fullmatch(_stem(name)) is None, name)):
            self._by_key.setdefault(key := _key(name), name)
            self._folder_by_key.setdefault(key[:-1], name.rpartition("/")[0])
        if self.by_folder and self._by_key:
            rows = ((name, self.row(name).get("mask", "")) for name in self.photographs())
            uses = Counter(os.path.relpath(mask, self.root) for name, mask in rows if mask)
            self._shared = {mask for mask, count in uses.items() if count > 1 and mask in self._masks}

    def _pass_over(self, names: Iterable[str]) -> None:
        """Count pictures in folders that are not read; the target of a link is read under the name of the link."""
        for name in names:
            folder = name.rpartition("/")[0]
            if not self._linked or not within(os.path.realpath(os.path.join(self.root, folder)), self._linked):
                self._others[folder.partition("/")[0]] += 1

    def _beside(self) -> Iterator[str]:
        """Yield the files in folders of masks that lie beside the folder of all photographs."""
        for top, path in subfolders(self._path).items() if self.by_folder else ():
            if plain(top) in TRUTH | MASKS and self._path and not os.path.samefile(self._path, self.root):
                for name, _ in scan(path):
                    yield os.path.relpath(os.path.join(path, name), self.root)

    def _mask_like(self, name: str) -> str | None:
        """The mask with the folders and the name of a photograph; a mask may have fewer folders than the photograph."""
        tails = (key[start:] for key in _photo_keys(name) for start in range(len(key)))
        return next((self._by_key[tail] for tail in tails if tail in self._by_key), None)

    def _mask_of(self, name: str) -> str:
        """Path of the mask of a bad photograph, also of a missing one if its folder has masks; else ""."""
        if found := self._mask_like(name):
            return "" if found in self._shared else os.path.normpath(os.path.join(self.root, found))
        for key in _photo_keys(name):
            if len(key) > 1 and (folder := self._folder_by_key.get(key[:-1])):
                return os.path.normpath(os.path.join(self.root, folder, f"{_stem(name)}_mask.png"))
        return ""


def mask_folder(name: str) -> str | None:
    """The folder of masks that a picture lies in, "" if only its own name says that it is one, None if nothing does."""
    folder, _, last = name.rpartition("/")
    if found := _mask_folder(folder):
        return found
    return "" if MASK_NAME.fullmatch(_stem(last)) else None


@lru_cache(maxsize=1024)
def _mask_folder(folder: str) -> str | None:
    parts = folder.split("/")
    ends = (number for number, part in enumerate(parts, 1) if plain(part) in TRUTH | MASKS)
    return "/".join(parts[: next(ends, 0)]) or None


def _key(name: str) -> Key:
    """What a mask shares with its photograph: split, folders and base name, without the parts that mark a mask."""
    *folders, _ = name.split("/")
    stem = _stem(name)
    named = MASK_NAME.fullmatch(stem)
    kept = [part for part in folders if part != ".." and plain(part) not in TRUTH | MASKS | PICTURES]
    return (*(SIDES.get(plain(part), part.casefold()) for part in kept), (named[1] if named else stem).casefold())


def _photo_keys(name: str) -> list[Key]:
    """The keys that a mask of this photograph may have: with and without the split."""
    key = _key(name)
    own = (*key[:-1], _stem(name).casefold())
    bare = tuple(part for part in own[:-1] if part not in SIDES.values())
    return [own] if len(bare) == len(own) - 1 else [own, (*bare, own[-1])]


def _stem(name: str) -> str:
    return os.path.splitext(name.rpartition("/")[2])[0]
