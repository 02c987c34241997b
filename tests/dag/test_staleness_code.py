"""What an edit of code, a template or a locked version makes stale, and a stage that failed."""

import fnmatch
import re
from pathlib import Path

import pytest
from conftest import ROOT
from defectflow.config import code_hash
from staleness import AFTER, ALL, ALL_OF_DEMO, CONFIG, closure, edited, sheet

PACKAGE = ROOT / "workflow/defectflow"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = {path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in FILES}
RULES = dict(
    re.findall(
        r'^rule (\w+):(?:(?!^rule ).)*?code_hash\("([\w.]+)"',
        "".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk"))),
        flags=re.MULTILINE | re.DOTALL,
    )
)


def imports(path: Path) -> set[str]:
    """Dotted names that a file of the package imports, found with a regular expression in its text."""
    found = set()
    text = re.sub(r"^if TYPE_CHECKING:.*\n(?: {4}.*\n|\n)+", "", path.read_text(), flags=re.MULTILINE)  # runs nothing
    assert not re.search(r"^ *from \.", text, re.MULTILINE), f"{path}: import by the whole name"
    for module, several, one in re.findall(
        r"^ *from (defectflow[\w.]*) import (?:\(([^)]*)\)|(.*))", text, re.MULTILINE
    ):
        names = (
            part.split(" as ")[0].split("#")[0].strip()
            for line in (several or one).split("\n")
            for part in line.split(",")
        )
        found |= {f"{module}.{name}" for name in names if name}
    found |= set(re.findall(r"^ *import (defectflow[\w.]*)", text, re.MULTILINE))
    for name in re.findall(r'"(defectflow(?:\.[\w*]+)+)"', text):  # what is imported by its name
        found |= set(fnmatch.filter((f"defectflow.{each}" for each in NAMES.values()), name)) if "*" in name else {name}
    return found


def runs_with(path: Path) -> set[Path]:
    """Files of the package that run when one of them does, one step away: what it imports, and their packages."""
    dotted = {f"defectflow.{NAMES[path]}"} | imports(path)
    names = {".".join(name.split(".")[1:end]) for name in dotted for end in range(1, name.count(".") + 2)}
    of = {name.removesuffix("__init__").rstrip("."): file for file, name in NAMES.items()}
    return {of[name] for name in names if name in of}


NEEDS = {path: runs_with(path) for path in FILES}


def users(path: Path) -> set[str]:
    """Modules that run ``path``, however far up."""
    found, todo = set(), [path]
    while todo:
        file = todo.pop()
        if file not in found:
            found.add(file)
            todo += [other for other in FILES if file in NEEDS[other]]
    return {NAMES[file] for file in found}


def test_the_guards_see_every_module_and_every_rule():
    assert len(FILES) > 100 and {"__init__"} < set(NAMES.values())
    assert set(RULES.values()) <= set(NAMES.values())
    assert set(RULES) >= set(AFTER) - {"all", "pretrain"} and len(RULES) > 20


def test_the_hash_of_a_stage_changes_with_every_module_that_it_runs_and_with_no_other(monkeypatch):
    stages = sorted(set(RULES.values()))
    source = code_hash.source

    def hashes(edited: str | None = None) -> dict[str, str]:
        monkeypatch.setattr(
            code_hash, "source", lambda name: source(name)._replace(code="edited") if name == edited else source(name)
        )
        code_hash.code_hash.cache_clear()
        return {stage: code_hash.code_hash(stage) for stage in stages}

    before = hashes()
    changed = {}
    for path, name in NAMES.items():
        after = hashes(name.removesuffix("__init__").rstrip("."))
        changed[path] = {stage for stage in stages if after[stage] != before[stage]}
    code_hash.code_hash.cache_clear()
    assert changed == {path: users(path) & set(stages) for path in FILES}


# Every stage, and of every room the first module: a dry run of all modules would take minutes.
STAGES = {path for path, name in NAMES.items() if name in RULES.values()}
OF_ROOMS = {next(path for path in FILES if path.parent == room) for room in {path.parent for path in FILES}}
EDITED = sorted(STAGES | OF_ROOMS)


@pytest.mark.parametrize("path", EDITED, ids=[NAMES[path] for path in EDITED])
def test_an_edit_of_a_module_re_runs_the_stages_that_import_it(site, demo, path):
    stages = users(path)
    first = " ".join(rule for rule, stage in RULES.items() if stage in stages)
    place, present = (site, ALL) if closure(first, ALL) else (demo, ALL_OF_DEMO)
    stale = edited(place, str(path.relative_to(ROOT)), lambda text: text + "\nCHANGED = 1\n")
    assert set(stale) == closure(first, present) | sheet(stale)


def test_masks_without_a_network_do_not_depend_on_its_code(site):
    stale = edited(site, "sam_model.py", lambda text: text + "\nCHANGED = 1\n")
    assert stale["masks"] == 2 and site.jobs("--forcerun", "masks", config=CONFIG)["masks"] == 6


@pytest.mark.parametrize("module", ["files", "survey", "sam_model"])
def test_comments_docstrings_and_layout_re_run_nothing(site, module):
    def comment(text: str) -> str:
        _, _, rest = text.partition('"""\n')
        rest = re.sub(r"^( *)return (.*[^(\[{,])$", r"\1# Another.\n\1return  \2", rest, flags=re.M)
        return f'"""Other words.\n"""\n# A comment.\n\n{rest}'

    assert edited(site, f"{module}.py", comment) == {}


def test_a_network_s_settings_count_as_code(site):
    stale = edited(site, "sam2.1_nano.yaml", lambda text: text + "# changed\n")
    assert set(stale) == closure("segment", ALL)


@pytest.mark.parametrize(
    ("library", "first"),
    [
        ("numpy", "survey ingest sam_pairs"),
        ("torch", "prior segment features candidates"),
        ("timm", "prior segment features candidates"),
        ("albumentations", "augment"),
        ("sam2", "segment"),
        ("scikit-learn", "fit calibrate check_labels next_to_label"),
        ("matplotlib", "ingest evaluate part_sheet"),  # ingest draws the sheet of outlines
        ("tqdm", ""),
        ("pytest", ""),
        ("snakemake", ""),
    ],
)
def test_another_version_of_a_library_re_runs_the_stages_that_import_it(site, library, first):
    stale = edited(
        site, "requirements.lock", lambda text: re.sub(rf"^{library}==\S+", f"{library}==99", text, flags=re.M)
    )
    assert set(stale) == closure(first, ALL)


# --- A stage that failed --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def written(site) -> dict[str, list[Path]]:
    """What each rule wrote."""
    files: dict[str, list[Path]] = {}
    for line in site.snakemake("--summary", config=CONFIG).stdout.splitlines():
        name, _, rule, *_ = line.split("\t")
        if name.startswith("results/"):
            files.setdefault(rule, []).append(site.folder / name)
    return files


@pytest.mark.parametrize("rule", sorted(ALL))
def test_a_stage_that_failed_after_a_change_runs_again_with_all_that_follows(site, written, rule):
    # Snakemake notes the new settings of a job that fails, and removes its outputs: nothing but their absence tells.
    aside = {path: path.with_name(path.name + ".aside") for path in written[rule]}
    for path, elsewhere in aside.items():
        path.rename(elsewhere)
    try:
        stale = site.stale()
    finally:
        for path, elsewhere in aside.items():
            elsewhere.rename(path)
    counts = closure("features", ALL) if rule == "picture_shape" else set()  # an absent input is not `ancient`
    assert set(stale) == closure(rule, ALL) | counts | sheet(stale)
