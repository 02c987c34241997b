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
    (folder / "e.py").write_text("y = 1\n")
    monkeypatch.setattr(module, "PACKAGE", folder)

    def hashes() -> dict[str, str]:
        module.code_hash.cache_clear()
        module.imported_modules.cache_clear()
        return {name: module.code_hash(name) for name in "abcde"}

    yield folder, hashes
    module.code_hash.cache_clear()
    module.imported_modules.cache_clear()


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


def test_every_stage_has_a_hash_of_its_own():
    stages = [path.stem for path in module.PACKAGE.glob("*.py")]
    assert len({module.code_hash(name) for name in stages}) == len(stages)
    assert "files" in module.imported_modules("isolate") and Path(module.PACKAGE, "files.py").exists()
