import sys
from pathlib import Path

import pytest
from defectflow import code_hash as module


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
        for function in (module.source, module.imported_modules, module.locked_versions, module.code_hash):
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
    names = {path.stem for path in module.PACKAGE.glob("*.py")}
    tops = {name.split(".")[0] for stem in names for name in module.source(stem).imports}
    tops -= {*sys.stdlib_module_names, "__future__", "defectflow", "None", "nncf"}  # nncf: an extra of its own
    assert {top for top in tops if module.DISTRIBUTIONS.get(top, top.lower()) not in module.locked_versions()} == set()


def test_every_stage_has_a_hash_of_its_own():
    stages = [path.stem for path in module.PACKAGE.glob("*.py")]
    assert len({module.code_hash(name) for name in stages}) == len(stages)
    assert "files" in module.imported_modules("isolate") and Path(module.PACKAGE, "files.py").exists()
