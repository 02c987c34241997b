import os
import subprocess
import sys
import time

import pytest
from defectflow.config import code_hash as module


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package of the same name whose modules may be edited."""
    folder = tmp_path / "defectflow"
    folder.mkdir()
    (folder / "a.py").write_text("from defectflow.b import f\n")
    (folder / "b.py").write_text("def f():\n    from defectflow import c\n    return c\n")
    (folder / "c.py").write_text("x = 1\n")
    (folder / "d.py").write_text("import defectflow.c\n")
    (folder / "e.py").write_text("import sklearn.svm\nfrom tqdm import tqdm\nFILE = 'net.yaml'\n")
    (folder / "configs").mkdir()
    (folder / "configs/net.yaml").write_text("layers: 1\n")
    (tmp_path / "lock").write_text("scikit-learn==1.5 \\\n    --hash=sha256:0\ntqdm==4.0\n")
    monkeypatch.setattr(module, "PACKAGE", folder)
    monkeypatch.setattr(module, "LOCK", tmp_path / "lock")

    def forget() -> None:
        for function in (
            module.source,
            module._all,
            module.imported_modules,
            module.locked_versions,
            module._settings_files,
            module.code_hash,
        ):
            function.cache_clear()

    def hashes() -> dict[str, str]:
        forget()
        return {name: module.code_hash(name) for name in "abcde"}

    yield folder, hashes
    forget()


def test_an_edit_changes_the_module_and_all_that_import_it_and_nothing_else(package):
    folder, hashes = package
    before = hashes()
    (folder / "c.py").write_text("x = 2\n")
    after = hashes()
    assert {name for name in before if before[name] != after[name]} == {"a", "b", "c", "d"}


def test_touch_and_copy_change_nothing(package):
    folder, hashes = package
    before = hashes()
    for path in folder.glob("*.py"):
        path.touch()
    assert hashes() == before


def test_an_edit_of_a_template_changes_the_stages_that_name_its_folder(package):
    folder, hashes = package
    (folder / "templates").mkdir()
    (folder / "templates/page.html").write_text("one")
    hashes()
    before = module.code_hash("e", "templates"), module.code_hash("e")
    (folder / "templates/page.html").write_text("two")
    hashes()
    assert module.code_hash("e", "templates") != before[0] and module.code_hash("e") == before[1]


def test_comments_docstrings_and_layout_change_nothing(package):
    folder, hashes = package
    before = hashes()
    (folder / "c.py").write_text('"""What it is."""\n\n# Why.\nx = (\n    1\n)\n')
    (folder / "b.py").write_text('def f():\n    """Say it."""\n    from defectflow import c\n\n    return c\n')
    assert hashes() == before


@pytest.mark.parametrize(
    ("file", "text", "changed"),
    [
        ("../lock", "scikit-learn==1.6\ntqdm==4.0\n", {"e"}),
        ("../lock", "scikit-learn==1.5\ntqdm==5.0\n", set()),
        ("configs/net.yaml", "layers: 2\n", {"e"}),
    ],
)
def test_libraries_and_settings_count_but_a_progress_bar_does_not(package, file, text, changed):
    folder, hashes = package
    before = hashes()
    (folder / file).write_text(text)
    after = hashes()
    assert {name for name in before if before[name] != after[name]} == changed


def test_a_module_that_is_not_followed_does_not_count(package):
    folder, hashes = package
    hashes()
    before = module.code_hash("a", without="c")
    (folder / "c.py").write_text("x = 2\n")
    hashes()
    assert module.code_hash("a", without="c") == before != module.code_hash("a")


def test_every_library_the_package_imports_is_found_in_the_lock():
    tops = {name.split(".")[0] for each in module.modules() for name in module.source(each).imports}
    tops -= {*sys.stdlib_module_names, "__future__", "defectflow", "None"}
    tops -= {"nncf", "pillow_heif"}  # not in the lock: users install them for int8 and for HEIC
    assert {top for top in tops if module.DISTRIBUTIONS.get(top, top.lower()) not in module.locked_versions()} == set()


def test_every_module_has_a_hash_of_its_own():
    files = [path for path in module.PACKAGE.rglob("*.py") if path != module.PACKAGE / "__init__.py"]
    assert len(module.modules()) == len(files) > 100
    stages = [name for name in module.modules() if module.path_of(name).name != "__init__.py"]
    assert len({module.code_hash(name) for name in stages}) == len(stages)


# --- Rooms: packages in the package ---------------------------------------------------------------------------------
IMPORTS = {
    "absolute": "from defectflow.room.inner.leaf import x\n",
    "of the module": "from defectflow.room.inner import leaf\n",
    "dotted": "import defectflow.room.inner.leaf\n",
    "in a function": "def f():\n    from defectflow.room.inner import leaf as other\n",
    "in brackets": "from defectflow.room.inner import (\n    other,\n    leaf,\n)\n",
    "relative": "from .inner import leaf\n",
    "relative, of a name": "from .inner.leaf import x\n",
    "relative, all": "from .inner.leaf import *\n",
    "relative, up": "from ..room.inner.leaf import x\n",
    "beside": "from . import beside\n",
    "by a pattern": "found = 'defectflow.room.*leaf'\n",
    "by name": "import importlib\nleaf = importlib.import_module('defectflow.room.inner.leaf')\n",
}


@pytest.fixture
def rooms(package):
    """The small package with a room in it, a room in that, and a module `room.user` that does not import it yet."""
    folder, hashes = package
    inner = folder / "room/inner"
    inner.mkdir(parents=True)
    (folder / "__init__.py").write_text('"""All of it."""\n')
    (folder / "room/__init__.py").write_text('"""A room."""\n')
    (inner / "__init__.py").write_text('"""A room in a room."""\n')
    (inner / "leaf.py").write_text("x = 1\n")
    (folder / "room/beside.py").write_text("from defectflow.room.inner import leaf\n")
    (folder / "room/user.py").write_text("y = 1\n")

    def hash_of(name: str, **options) -> str:
        hashes()  # forgets what was read
        return module.code_hash(name, **options)

    return folder, hash_of


@pytest.mark.parametrize("how", IMPORTS)
@pytest.mark.parametrize("file", ["room/inner/leaf.py", "room/inner/__init__.py", "room/__init__.py", "__init__.py"])
def test_an_edit_in_a_room_changes_what_imports_it(rooms, how, file):
    folder, hash_of = rooms
    (folder / "room/user.py").write_text(IMPORTS[how])
    before = hash_of("room.user")
    assert before != hash_of("room.inner.leaf") and before != hash_of("c")
    (folder / file).write_text((folder / file).read_text() + "CHANGED = 1\n")
    assert hash_of("room.user") != before


def test_an_edit_elsewhere_in_a_room_changes_nothing(rooms):
    folder, hash_of = rooms
    (folder / "room/user.py").write_text("from defectflow import c\n")
    before = hash_of("room.user")
    (folder / "room/inner/leaf.py").write_text("x = 2\n")
    (folder / "room/inner/__init__.py").write_text("x = 2\n")
    (folder / "room/beside.py").write_text("x = 2\n")
    assert hash_of("room.user") == before


def test_every_form_of_import_runs(rooms):
    # What the table above calls an import is one for Python as well.
    folder, _ = rooms
    (folder / "room/inner/other.py").write_text("")
    for number, text in enumerate(IMPORTS.values()):
        (folder / f"room/user{number}.py").write_text(text)
    script = "".join(f"import defectflow.room.user{number}\n" for number in range(len(IMPORTS)))
    environment = os.environ | {"PYTHONPATH": str(folder.parent)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_a_module_of_a_room_or_a_whole_room_can_be_left_out(rooms):
    folder, hash_of = rooms
    (folder / "room/user.py").write_text("def f():\n    from defectflow.room.inner import leaf\n")
    before = [hash_of("room.user", without=name) for name in ("room.inner.leaf", "room.inner")]
    (folder / "room/inner/leaf.py").write_text("x = 2\n")
    assert [hash_of("room.user", without=name) for name in ("room.inner.leaf", "room.inner")] == before
    assert hash_of("room.user") not in before


def test_settings_and_templates_may_lie_in_a_room(rooms):
    folder, hash_of = rooms
    (folder / "room/user.py").write_text("FILE = 'tiny.yaml'\n")
    for name in ("configs/tiny.yaml", "templates/page.html"):
        (folder / "room" / name).parent.mkdir()
        (folder / "room" / name).write_text("one")
    before, with_page = hash_of("room.user"), module.code_hash("room.user", "room/templates")
    (folder / "room/templates/page.html").write_text("two")
    assert hash_of("room.user") == before and module.code_hash("room.user", "room/templates") != with_page
    (folder / "room/configs/tiny.yaml").write_text("two")
    assert hash_of("room.user") != before


@pytest.mark.parametrize(("names", "without"), [(("nothing",), ""), (("a",), "nothing"), (("a", "nothing"), "")])
def test_what_is_not_there_has_no_hash(package, names, without):
    with pytest.raises(ValueError, match="nothing"):
        module.code_hash(*names, without=without)


# --- What is remembered from one call of Snakemake to the next ------------------------------------------------------
@pytest.fixture
def remembered(package, tmp_path, monkeypatch):
    folder, hashes = package
    cache = tmp_path / "cache/code.json"
    for path in folder.glob("*.py"):
        os.utime(path, ns=(10**18, 10**18))
    monkeypatch.setattr(module, "SETTLED", 0)  # else nothing written within this test is remembered
    time.sleep(0.02)

    def again() -> dict[str, str]:
        module.remember(cache)
        return hashes()

    yield folder, cache, again
    module._cache.update(file=None, known={}, new=False)


def test_unchanged_modules_are_read_once(remembered, monkeypatch):
    _, cache, again = remembered
    before = again()
    assert cache.exists()
    monkeypatch.setattr(module, "_parse", None)
    assert again() == before


def test_an_edit_that_keeps_size_and_time_is_seen(remembered):
    folder, _, again = remembered
    before = again()
    (folder / "c.py").write_text("x = 2\n")
    os.utime(folder / "c.py", ns=(10**18, 10**18))
    after = again()
    assert {name for name in before if before[name] != after[name]} == {"a", "b", "c", "d"}


def test_what_was_just_written_is_not_remembered(remembered, monkeypatch):
    _, cache, again = remembered
    monkeypatch.setattr(module, "SETTLED", 60 * 10**9)
    again()
    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"reader": "another", "modules": {}}'])
def test_a_cache_of_another_form_is_made_again(remembered, content):
    _, cache, again = remembered
    before = again()
    whole = cache.read_text()
    cache.write_text(content)
    assert again() == before and cache.read_text() == whole


def test_a_folder_that_takes_no_files_is_no_error(remembered):
    _, cache, again = remembered
    cache.parent.write_text("a file where the folder goes")
    assert len(again()) == 5
