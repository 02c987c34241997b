"""The map of rooms: the picture, the table and the tree say the same."""

import ast
import re
import subprocess
import sys

from conftest import ROOT

PACKAGE = ROOT / "workflow/defectflow"
PAGE = (ROOT / "docs/architecture.md").read_text()
ROOMS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)


def test_the_picture_shows_the_imports_of_today(tmp_path):
    subprocess.run([sys.executable, ROOT / "docs/draw_rooms.py", tmp_path / "rooms.svg"], check=True)
    drawn = (tmp_path / "rooms.svg").read_text()
    assert drawn.count("<rect") > 15 and drawn.count("marker-end") > 20
    assert drawn == (ROOT / "docs/rooms.svg").read_text(), "run `python docs/draw_rooms.py`"


def test_the_page_has_the_sentence_of_every_room():
    for room in ROOMS:
        tree = ast.parse((room / "__init__.py").read_text())
        name = ".".join(room.relative_to(PACKAGE).parts)
        assert len(tree.body) == 1, f"{name}: nothing but its sentence goes into __init__.py"
        assert f"| `{name}` | {ast.get_docstring(tree)} |" in PAGE, name


def test_every_file_that_the_page_names_exists():
    names = re.findall(r"\]\((\.\./[^)]+)\)", PAGE)
    assert len(names) > 40 and [name for name in names if not (ROOT / "docs" / name).is_file()] == []
    assert len(re.findall(r"(?m)^\| .*\.\./workflow/defectflow/", PAGE)) >= 20


def test_modules_lie_in_rooms_that_can_be_looked_over():
    assert {path.name for path in PACKAGE.glob("*.py")} <= {"__init__.py", "__main__.py"}
    for room in ROOMS:
        assert len(list(room.glob("*.py"))) <= 17, f"{room.name}: a room has 16 modules at most"
    long = {path.name for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 350}
    assert long == set(), "350 lines at most"


def test_unit_tests_lie_in_the_room_of_what_they_test():
    rooms: dict[str, set] = {}  # several rooms have a module `settings`
    for path in PACKAGE.rglob("*.py"):
        rooms.setdefault(path.stem, set()).add(ROOT / "tests/unit" / path.parent.relative_to(PACKAGE))
    for path in (ROOT / "tests/unit").rglob("test_*.py"):
        known = rooms.get(path.stem.removeprefix("test_"), {path.parent})
        assert path.parent in known, path


def test_stages_that_need_no_network_load_no_heavy_library():
    rooms = ("data", "demo", "parts", "segmentation", "isolation", "evaluation", "reporting")
    files = [
        path for room in rooms for path in sorted((PACKAGE / room).glob("*.py")) if "stage(main" in path.read_text()
    ]
    names = [f"defectflow.{path.parent.name}.{path.stem}" for path in files]
    assert len(names) >= 16
    heavy = {"torch", "torchvision", "timm", "sam2", "anomalib", "albumentations", "matplotlib", "sklearn"}
    names.append("defectflow.detection.normal_embed")
    code = f"import sys, {', '.join(names)}; print(*sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.split() == []


def test_nothing_but_the_models_of_anomalib_imports_it():
    """Its import takes 5 s."""
    found = [path for path in PACKAGE.rglob("*.py") if re.search(r"^\s*(from|import) anomalib", path.read_text(), re.M)]
    assert {path.parent for path in found} == {PACKAGE / "methods/anomalib_models"}
