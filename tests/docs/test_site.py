"""The site (`make docs`): strict, every room, every page, and nothing from another host."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "workflow/defectflow"
PAGES = ["CHANGELOG", "CONTRIBUTING", "benchmarks/index", "data/index", "index"]
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?(?:https?:)?//|<link[^>]*\shref=[\"']?(?:https?:)?//"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    # Whatever asks for another host gets no answer.
    offline = os.environ | {
        "NO_MKDOCS_2_WARNING": "1",
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    built = subprocess.run(command, cwd=ROOT, env=offline, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_page_is_on_the_site_and_in_the_navigation(site):
    docs = [f"docs/{path.stem}" for path in (ROOT / "docs").glob("*.md")]
    assert len(docs) >= 6
    start = (site / "index.html").read_text()
    for page in PAGES + docs:
        assert (site / f"{page}.html").is_file(), page
        assert f'href="{page}.html"' in start, f"{page}: not in the navigation"


def test_every_module_is_on_the_page_of_its_room(site):
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {path.stem for path in (site / "api").glob("*.html")} == folders
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        if path.parent != PACKAGE and path.stem != "__init__":
            page = site / "api" / f"{name.split('.')[1]}.html"
            assert f'id="{name}"' in page.read_text(), name
    core = (site / "api/core.html").read_text()
    assert 'id="defectflow.core.files.atomic"' in core and 'id="defectflow.core.files._' not in core


def test_links_to_modules_lead_to_their_api_pages(site):
    page = (site / "docs/architecture.html").read_text()
    assert 'href="../api/images.html#defectflow.images.sixteen_to_eight_bits"' in page
    assert ".py.html" not in page and not re.search(r'href="[^"]*\.py"', page)


def test_nothing_is_fetched_from_another_host(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    assert [page.name for page in pages if FETCHED.search(page.read_text())] == []
    styles = [
        path.name
        for path in site.rglob("*.css")
        if re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", path.read_text())
    ]
    assert styles == []
