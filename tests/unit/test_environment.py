"""The lock, the environments and the documents say the same."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
LOCKED_EXTRAS = ("workflow", "inspect", "onnx", "serve", "opcua", "desk", "dev")  # as in the Makefile
LOCKED = dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", LOCK, flags=re.MULTILINE))


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for name in LOCKED_EXTRAS for text in extras[name])]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_requirement_is_locked_at_a_version_it_allows(requirement):
    assert requirement.specifier.contains(LOCKED[requirement.name.lower()]), "run `make lock`"


def test_the_lock_has_hashes_and_names_no_index():
    assert LOCK.count("--hash=sha256:") > len(LOCKED) > 100
    assert "://" not in LOCK


def test_the_conda_environment_installs_the_versions_of_the_lock():
    environment = yaml.safe_load((ROOT / "envs/defectflow.yaml").read_text())
    (pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    pinned = [Requirement(text) for text in pip]
    assert {r.name: str(r.specifier).removeprefix("==") for r in pinned} == LOCKED, "run `make lock`"
    conditions = dict(re.findall(r"^([a-z0-9._-]+)==[^ ;]+ ; ([^\\\n]+?) *\\?$", LOCK, flags=re.MULTILINE))
    assert {r.name: str(r.marker) for r in pinned if r.marker} == {
        name: str(Marker(text)) for name, text in conditions.items()
    }


def test_the_container_has_the_python_of_the_conda_environment_and_copies_what_is_there():
    text = (ROOT / "envs/Dockerfile").read_text()
    python = re.search(r"^FROM python:(\d+\.\d+)", text, flags=re.MULTILINE)[1]
    assert f"python ={python}" in yaml.safe_load((ROOT / "envs/defectflow.yaml").read_text())["dependencies"]
    copied = " ".join(re.findall(r"^COPY (.*) \S+$", text, flags=re.MULTILINE)).split()
    assert {"requirements.lock", "Snakefile", "workflow"} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []


PAGES = [
    "README.md",
    *(str(path.relative_to(ROOT)) for pattern in ("[!.]*/README.md", "docs/*.md") for path in ROOT.glob(pattern)),
]


@pytest.mark.parametrize("page", PAGES)
def test_links_between_the_pages_lead_somewhere(page):
    path = ROOT / page
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_every_stage_the_rules_call_exists_and_explains_itself():
    called = {
        name
        for path in (ROOT / "workflow/rules").glob("*.smk")
        for name in re.findall(r"python -m defectflow\.([\w.]+)", path.read_text())
    }
    assert {"survey", "ingest", "fit", "score", "evaluate"} <= {name.rpartition(".")[2] for name in called}
    for name in called:
        text = (ROOT / f"workflow/defectflow/{name.replace('.', '/')}.py").read_text()
        assert text.startswith('"""') and "def build_parser(" in text, name


def test_the_package_asks_idle_threads_to_sleep_before_torch_is_loaded():
    code = "import defectflow, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["passive", "False"]
