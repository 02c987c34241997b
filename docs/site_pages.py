"""MkDocs hook: the repository's pages at their own paths, and an API page of each room (`make docs`).

Pages keep their places in the tree, so that a relative link means the same on the site as in the repository.
"""

import ast
import os
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from draw_rooms import ROOT, order

PACKAGE = ROOT / "workflow/defectflow"
FIRST = (
    "docs/desk.md",
    "docs/parts.md",
    "docs/verdicts.md",
    "docs/unlabelled.md",
    "docs/detectors.md",
    "docs/configuration.md",
    "docs/input.md",
    "docs/inspect.md",
)
FIRST = (*FIRST, "docs/deploy.md", "docs/learning.md", "docs/scale.md")
CODE = ("docs/architecture.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
LINK = re.compile(r"(\]\(|<img [^>]*src=\")([^)\s\"#]+)")
NOT_SHOWN = re.compile(r"\[([^\]]*)\]\(([^)\s:]+\.(?:py|html))\)")  # what a browser would not show as its source


def guides() -> list[str]:
    """Pages for users, from the root of the repository; those that FIRST does not name come last."""
    found = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))]
    return ["data/README.md", *FIRST, *(page for page in found if page not in FIRST + CODE)]


def cards() -> list[str]:
    """Cards of the included weights."""
    return [path.relative_to(ROOT).as_posix() for path in sorted(PACKAGE.glob("*/weights/*.md"))]


def rooms() -> list[str]:
    """Every folder of the package in the order of the data; ValueError if the contract in pyproject.toml has others."""
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    if folders != set(order()):
        raise ValueError(f"rooms and the layers in pyproject.toml differ: {sorted(folders ^ set(order()))}")
    return order()


def modules(room: str) -> list[str]:
    """Whole names of the modules of a room and of the rooms in it."""
    paths = sorted((PACKAGE / room).rglob("*.py"), key=lambda path: (path.parent, path.name))
    return [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths if path.stem != "__init__"
    ]


def room_page(room: str) -> str:
    """Markdown of a room's API page: its sentence, then each module."""
    sentence = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8")))
    return "\n\n".join([f"# {room}", sentence or "", *(f"::: {module}" for module in modules(room))]) + "\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation, from the files that there are."""
    config.nav = [
        {"Start": "README.md"},
        {"Guides": guides()},
        {"Code": [*CODE, *cards()]},
        {"API": [{room: f"api/{room}.md"} for room in rooms()]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Pages, whatever they link to, and the API pages; of what MkDocs found, only the theme's own."""
    pages = ["README.md", *guides(), *CODE, *cards()]
    linked = set()
    for page in pages:
        for _, target in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
            path = Path(os.path.normpath(ROOT / Path(page).parent / target))
            if (
                "://" not in target
                and path.is_file()
                and path.suffix not in (".py", ".html")
                and path.is_relative_to(ROOT)
            ):
                linked.add(path.relative_to(ROOT).as_posix())
    kept = [file for file in files if file.src_dir != config.docs_dir]
    for name in sorted(linked | set(pages)):
        kept.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    for room in rooms():
        kept.append(File.generated(config, f"api/{room}.md", content=room_page(room)))
    return Files(kept)


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links to modules lead to their API pages; the names of other scripts and of templates stay text."""
    here = ROOT / Path(page.file.src_uri).parent

    def shown(match: re.Match[str]) -> str:
        path = Path(os.path.normpath(here / match[2]))
        if path.suffix != ".py" or not path.is_relative_to(PACKAGE):
            return match[1]
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        return f"[{match[1]}]({os.path.relpath(ROOT / 'api' / parts[1], here)}.md#{'.'.join(parts)})"

    return NOT_SHOWN.sub(shown, markdown)
