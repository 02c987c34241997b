"""Find the photograph that a name in a table or COCO file means.

Tools write names with the folders of their own machine, with upload prefixes, or as URLs. A name is only compared with
the names of the photographs, and never opened as a path.

Standard library only: the Snakefile imports this module through ``preflight``.
"""

import difflib
import os
import posixpath
import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from urllib.parse import unquote

# Common top folders of an export; they do not help to find the photograph.
GENERIC = {
    "/", "..", "data", "image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "upload", "uploads",
    "media", "files", "local-files", "obj_train_data", "jpegimages", "download", "downloads",
}  # fmt: skip
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+://)(.*)", re.DOTALL)
STRANGE = re.compile(r"[\\%]|\?d=|//|^/|^[A-Za-z]:|(?:^|/)\.{1,2}/|/$")
UPLOAD = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio: 8f3a1c2e-a.jpg
DIGITS = re.compile(r"[0-9]{8}-(.+)")  # one upload in 43 has no letter there
SURE, LIKELY, UNSURE = "sure", "likely", "unsure"  # whether such digits are those of uploads
ROBOFLOW = re.compile(r"(.+)_(jpe?g|png|bmp|tiff?|webp)\.rf\.[0-9A-Za-z]+\.[a-z]+", re.IGNORECASE)
HINTS = 20  # nearest names that are looked up: as many as are printed
WINDOW = 100  # names in order among which the nearest is looked for, on each side

Path = tuple[str, ...]


class Matcher:
    """Finds the photograph that a name in a labels table or COCO file means.

    Folders are compared if both names have them: `day1/a.jpg` matches `a.jpg` only if `day1` is above all given names
    (the root of an export), and it never matches `day2/a.jpg`. Only the base name counts if the given name has no
    folder, or only such a root (`/data/upload/`, a URL). A prefix or suffix that a tool added to the base name
    (`8f3a1c2e-a.jpg`, `a_jpg.rf.1f2e.jpg`) is ignored if no photograph has it. Eight digits (`20240101-a.jpg`) may be a
    date as well, so these are ignored only where all names of a file begin like uploads, and some with a letter among
    the eight, or each means another photograph and no photograph has digits there; ``undated`` maps names of the latter
    kind to their photographs. Letter case (`IMG_1.JPG` for
    `img_1.jpg`) is ignored if nothing else matches and exactly one photograph differs in case only; ``recased`` maps
    such names to their photographs. `a.*` is `a` with any suffix, for tools that write none.

    Args:
        names: of all photographs, relative to their folder.
        given: all names that will be looked up, as written. A pair (name, folder) is a name from a file in that
            subfolder of the image folder.
        base: folder of the photographs; its own name may precede the given names.
    """

    def __init__(self, names: Iterable[str], given: Iterable[str | tuple[str, str]], base: str | os.PathLike[str] = ""):
        self._again = () if isinstance(names, Iterator) else names
        pairs = {(one, "") if isinstance(one, str) else one for one in given}
        wanted: set[str] = set()
        loose: set[str] = set()
        cased: set[str] = set()
        self.recased: dict[str, str] = {}
        self.undated: dict[str, str] = {}
        above: defaultdict[str, set[Path]] = defaultdict(set)
        bases: defaultdict[str, list[str]] = defaultdict(list)
        for name, folder in pairs:
            readings = _readings(name)
            for _, last in readings:
                wanted.add(last)
                cased.add(last.casefold())
                loose.update(map(_loose, _without_tool(last)))
            above[folder].add(readings[0][0])
            bases[folder].append(readings[0][1])
        self._shared = {folder: _common(paths) for folder, paths in above.items()}
        self._names: dict[str, str] = {}
        self._by_base: defaultdict[str, list[str]] = defaultdict(list)
        self._by_loose: defaultdict[str, list[str]] = defaultdict(list)
        self._by_case: defaultdict[str, list[str]] = defaultdict(list)
        folders, twice, dated = set(), set[str](), False
        starred = any(last.endswith(".*") for last in wanted)
        for name in names:
            composed = _composed(name)
            folder, _, last = composed.rpartition("/")
            folders.add(folder)
            dated = dated or bool(last[8:9] == "-" and DIGITS.fullmatch(last))
            if last in wanted:
                self._names[composed] = name
                self._by_base[last].append(name)
            if starred and (bare := f"{posixpath.splitext(last)[0]}.*") in wanted:
                path = composed[: len(composed) - len(last)] + bare
                twice.update({path} & self._names.keys())
                self._names[path] = name
                self._by_base[bare].append(name)
            if last.casefold() in cased:
                self._by_case[composed.casefold()].append(name)
            if loose and _loose(last) in loose:
                self._by_loose[_loose(last)].append(name)
        self._names = {path: name for path, name in self._names.items() if path not in twice}
        self._folders = {folder[: match.start()] for folder in folders for match in re.finditer(r"/|$", folder)} - {""}
        self._beside: set[str] = set()
        for name, folder in pairs:
            if folder and folder not in self._beside and self._exact(name, folder):
                self._beside.add(folder)
        self._base = _split(os.path.abspath(base))[0] + (os.path.basename(os.path.abspath(base)),) if base else ()
        self._digits = {folder: _digits_of_uploads(lasts, dated) for folder, lasts in bases.items()}
        self._hinted = 0

    def find(self, name: str, folder: str = "") -> tuple[str | None, str]:
        """Return (name of the photograph, "") or (None, reason), the reason being ready for a message."""
        if exact := self._exact(name, folder):
            return exact, ""
        readings = _readings(name)
        if folder not in self._beside:  # names in a file next to its photographs are relative to that file
            if folder and (exact := self._exact(name, "")):
                return exact, ""
            for search in (self._named, self._renamed, self._undated):
                for folders, last in readings:
                    fits = self._fits(folders, search(last), self._shared.get(folder, ()))
                    if fits and search == self._undated:
                        known = self._digits.get(folder, UNSURE)
                        if known == UNSURE:
                            text = f"{last[:8]} may be a date, or what a tool put before {fits[0]}"
                            return None, f"{text} (write its name)"
                        if known == LIKELY and len(fits) == 1:
                            self.undated[name] = fits[0]
                    if len(fits) == 1:
                        return fits[0], ""
                    if fits:
                        return None, f"the name fits several images: {fits[0]}, {fits[1]}"
        if alike := self._but_for_case(name, folder):
            if len(alike) > 1:
                return None, f"the name fits several images but for letter case: {alike[0]}, {alike[1]}"
            self.recased[name] = alike[0]
            return alike[0], ""
        top = readings[0][0][:1]
        left = top and (top[0] in ("/", "..") or re.fullmatch(r"[A-Za-z]:", top[0]))
        near = self._nearest(name)
        hint = f" (nearest: {near})" if near else ""
        return None, ("the path leaves the image folder" if left else "no such image in the image folder") + hint

    def _exact(self, name: str, folder: str) -> str | None:
        for folders, last in _readings(name):
            path = "/".join((*folders, last))
            if found := self._names.get(posixpath.normpath(posixpath.join(folder, path)) if folder else path):
                return found
        return None

    def _but_for_case(self, name: str, folder: str) -> list[str]:
        """Photographs whose full name differs from the given one in letter case only."""
        for place in dict.fromkeys((folder, "")):
            for folders, last in _readings(name):
                path = posixpath.normpath(posixpath.join(place, *folders, last))
                if found := self._by_case.get(path.casefold()):
                    return sorted(found)
        return []

    def _named(self, last: str) -> list[str]:
        return sorted(self._by_base.get(last, ()))

    def _renamed(self, last: str) -> list[str]:
        plains = _without_tool(last)[1 if DIGITS.fullmatch(last) else 0 :]
        return sorted({name for plain in plains for name in self._by_loose.get(_loose(plain), ())})

    def _undated(self, last: str) -> list[str]:
        found = last[8:9] == "-" and DIGITS.fullmatch(last)
        return sorted(self._by_loose.get(_loose(found[1]), ())) if found else []

    def _fits(self, folders: Path, candidates: list[str], shared: Path) -> list[str]:
        """The candidates (all with one base name) whose folders agree best with those of the given name."""
        ranked = [(self._agreement(folders, _split(name)[0], shared), name) for name in candidates]
        best = max((rank for rank, _ in ranked), default=-1)
        return [name for rank, name in ranked if rank == best >= 0]

    def _agreement(self, given: Path, own: Path, shared: Path) -> int:
        """Twice the number of folders that agree, plus one if all of the photograph's do; -1 if folders contradict."""
        if own[len(own) - len(given) :] == given or not given:
            return 2 * len(given)
        if given[len(given) - len(own) :] == own and self._is_root(given[: len(given) - len(own)], shared):
            return 2 * len(own) + 1
        # A meaningless root of an export, and below it the same folders or none.
        # A number may be part of the root (/data/upload/7), but 1/a.jpg is not 2/a.jpg.
        numbered = any(part.isdecimal() for part in own)
        generic = (_is_generic(part) or (n > 0 and not numbered and part.isdecimal()) for n, part in enumerate(given))
        known = next((n for n, is_root in enumerate(generic) if not is_root), len(given))
        known = min(known, len(_common([given, shared])))
        rest = given[known:]
        return 2 * len(rest) if known and own[len(own) - len(rest) :] == rest else -1

    def _is_root(self, folders: Path, shared: Path) -> bool:
        """Whether these folders are only the location of the export or of this set."""
        if "/".join(folders) in self._folders:
            return False
        return folders == shared[: len(folders)] or folders == self._base[len(self._base) - len(folders) :]

    def _nearest(self, name: str) -> str | None:
        folders, last = _readings(name)[0]
        alike = self._by_base.get(last) or self._renamed(last)
        if alike:
            return difflib.get_close_matches("/".join((*folders, last)), alike, 1, 0)[0]
        if self._hinted >= HINTS:
            return None
        self._hinted += 1
        key = _stem(last)
        window: dict[str, str] = {}
        for turn, known in self._sorted.items():
            place = bisect_left(known, (key[::turn],))
            window |= {stem[::turn]: name for stem, name in known[max(0, place - WINDOW) : place + WINDOW]}
        close = difflib.get_close_matches(key, window, 1)
        return window[close[0]] if close else None

    @cached_property
    def _sorted(self) -> dict[int, list[tuple[str, str]]]:
        """(base name without suffix, name) of all photographs, sorted from the front (1) and from the end (-1)."""
        stems = [(_stem(posixpath.basename(_composed(name))), name) for name in self._again]
        return {turn: sorted((stem[::turn], name) for stem, name in stems) for turn in (1, -1)}


def _readings(name: str) -> list[tuple[Path, str]]:
    """(folders, base name) as written, and with %20 and the like decoded; a URL and a drive count as folders."""
    name = _composed(name)
    if not STRANGE.search(name):
        *above, last = name.split("/")
        return [(tuple(above), last)]
    if "?d=" in name:  # Label Studio, files of its own machine: /data/local-files/?d=day1/a.jpg
        before, _, name = name.partition("?d=")
        return [_split(posixpath.join(before, unquote(name).lstrip("/")))]
    if url := URL.fullmatch(name):
        scheme, rest = url.groups()
        folders, last = _split(unquote(re.split(r"[?#]", rest)[0]))
        return [((scheme + "".join(folders[:1]), *folders[1:]), last)]
    plain = _split(name)
    return [plain, _split(unquote(name))] if "%" in name else [plain]


def _split(name: str) -> tuple[Path, str]:
    path = posixpath.normpath(name.replace("\\", "/"))
    *folders, last = path.lstrip("/").split("/")
    return ((("/",) if path.startswith("/") else ()) + tuple(folders)), last


def _stem(last: str) -> str:
    return posixpath.splitext(last)[0].casefold()


def _common(paths: Iterable[Path]) -> Path:
    """The folders that all paths begin with."""
    first, last = min(paths), max(paths)
    return first[: next((n for n, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))]


def _is_generic(part: str) -> bool:
    return part.lower() in GENERIC or part.endswith(":") or "://" in part


def _without_tool(last: str) -> list[str]:
    """The base name without additions of Label Studio or Roboflow; empty if there are none."""
    upload = last[8:9] == "-" and UPLOAD.fullmatch(last)
    roboflow = ".rf." in last and ROBOFLOW.fullmatch(last)
    return ([upload[1]] if upload else []) + ([f"{roboflow[1]}.{roboflow[2]}"] if roboflow else [])


def _digits_of_uploads(lasts: list[str], dated: bool) -> str:
    """Whether eight digits before base names of one file are those of uploads; ``dated``: photographs have some too."""
    plain = [found[1] for last in lasts if (found := DIGITS.fullmatch(last))]
    if not plain or not all(map(UPLOAD.fullmatch, lasts)):
        return UNSURE
    if len(plain) < len(lasts):
        return SURE
    return UNSURE if dated or len(set(plain)) < len(plain) else LIKELY


def _loose(name: str) -> str:
    """The name with special characters as underscores, as some tools write it."""
    return re.sub(r"[^\w.-]", "_", name)


def _composed(name: str) -> str:
    """The name with each accented letter as one character: a Mac writes two, which look the same."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
