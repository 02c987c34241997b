"""Photographs that are ready for clicks on the part, and the networks that prepare them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from defectflow.core.files import UserError
from defectflow.desk.pictures.thumbnails import to_look_at
from defectflow.desk.project import Project
from defectflow.desk.records.outlines import photograph_path, reduced
from defectflow.desk.running.choices import effective
from defectflow.segmentation.clicked_outline import Clickable, ClickNetworks
from defectflow.sources import preflight
from defectflow.sources.weight_checks import is_url

KEPT = 4  # photographs that are ready at a time; SAM's embedding of one takes 4 to 16 MB
PROMPTABLE = ("prompted", "sam_onnx", "sam2.1")  # methods of segmenters whose network takes clicks
NANO = "sam2.1-nano"


class Choice(NamedTuple):
    """The network that clicks prompt.

    Attributes:
        name: for people.
        files, model: as `promptable_network.load_network` takes them; the files as sorted pairs.
        told: why it is not the configured one; "": it is.
    """

    name: str
    files: tuple[tuple[str, str], ...] = ()
    model: str | None = "nano"
    told: str = ""


def choice_of(project: Project) -> Choice:
    """The network of the configured segmenter, or of the first promptable one in the folder's config.yaml, or nano.

    Raises:
        UserError: config.yaml cannot be read, or one of the network's files is missing or not the stated one.
    """
    config, own = effective(project), project.settings().get("segmenters") or {}
    entries: Mapping[str, Any] = config["segmenters"]
    named = [config["segmenter"], *own]
    name = next((one for one in named if (entries.get(one) or {}).get("method") in PROMPTABLE), None)
    if name is None:
        return Choice(NANO)
    entry = entries[name]
    keys = ("encoder", "decoder") if entry["method"] == "sam_onnx" else ("checkpoint",)
    given = {key: entry[key] for key in keys if entry.get(key)}
    if len(given) < len(keys) and entry.get("model") != "nano":
        missing = next(key for key in keys if key not in given)
        raise UserError(f"config.yaml: segmenters.{name} has no {missing} (set the path of its file)")
    files = {}
    for key, text in given.items():
        path = project.results / "checkpoints" / f"{name}.pt" if is_url(text) else project.folder / text
        if is_url(text) and not path.is_file():
            return Choice(NANO, told=f"{name} is downloaded by the first run; until then {NANO} takes the clicks")
        if not path.is_file():
            raise UserError(f"{path}: no such file (config.yaml names it under segmenters.{name}.{key})")
        if expected := entry.get("sha256" if key == "checkpoint" else f"{key}_sha256"):
            preflight.check_sha256(str(path), expected, str(project.state / "checksums.json"))
        files[key] = str(path)
    return Choice(name, tuple(sorted(files.items())), entry.get("model"))


class ClickablePhotographs:
    """The last few photographs opened for clicks, each encoded once."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._opened: OrderedDict[tuple[str, int], Clickable] = OrderedDict()
        self._lock = threading.Lock()  # of the above; never held for long
        self._encoding = threading.Lock()
        self._choice: Choice | None = None
        self._networks: ClickNetworks | None = None

    def warm(self) -> Choice:
        """Load the networks, which takes seconds, or other ones if config.yaml has changed.

        Raises:
            UserError: as `choice_of`, or a file of the network is damaged or of the wrong kind.
        """
        choice = choice_of(self._project)
        with self._encoding:
            if self._networks is None or choice != self._choice:
                self._networks = ClickNetworks.load(dict(choice.files), choice.model)
                self._choice = choice
                with self._lock:
                    self._opened.clear()
        return choice

    def open(self, name: str) -> Clickable:
        """A photograph ready for clicks; a click on one that is ready never waits for another to be encoded."""
        path = photograph_path(self._project, name)
        key = name, path.stat().st_mtime_ns
        if found := self._kept(key):
            return found
        if self._networks is None:
            self.warm()
        with self._encoding:
            if found := self._kept(key):
                return found
            assert self._networks is not None, "warm loads them"
            made = Clickable.of(reduced(to_look_at(path)), self._networks)
            with self._lock:
                self._opened[key] = made
                while len(self._opened) > KEPT:
                    self._opened.popitem(last=False)
        return made

    def _kept(self, key: tuple[str, int]) -> Clickable | None:
        with self._lock:
            if key in self._opened:
                self._opened.move_to_end(key)
            return self._opened.get(key)
