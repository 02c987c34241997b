"""Texts of the desk in other languages: catalogs/LANGUAGE.po, in the format of gettext.

A language is added by adding its file. The English texts are the ids, so English has no file.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request

CATALOGS = Path(__file__).parent / "catalogs"
COOKIE = "defectflow-language"


@dataclass(frozen=True)
class Words:
    """A language, and its {English text: text}."""

    language: str
    catalog: Mapping[str, str]

    def text(self, english: str, **values: object) -> str:
        """A text in this language, with {names} filled in; in English if the catalog lacks it."""
        found = self.catalog.get(english) or english
        return found.format(**values) if values else found


@functools.cache
def words(language: str) -> Words:
    """The texts of a language that has a catalog, English for any other."""
    path = CATALOGS / f"{language}.po"
    return Words(language, read_catalog(path)) if language in languages() and path.is_file() else Words("en", {})


@functools.cache
def languages() -> dict[str, str]:
    """{code: name in that language}: English, and those with a catalog (its text of `English` is its own name)."""
    found = {path.stem: read_catalog(path).get("English", path.stem) for path in sorted(CATALOGS.glob("*.po"))}
    return {"en": "English"} | found


def of_request(request: Request) -> Words:
    """The chosen language, or else the one that the browser requests."""
    chosen = request.cookies.get(COOKIE, "")
    if chosen in languages():
        return words(chosen)
    for part in request.headers.get("accept-language", "").split(",")[:20]:
        code = part.partition(";")[0].strip().partition("-")[0].lower()
        if code in languages():
            return words(code)
    return words("en")


def read_catalog(path: Path) -> dict[str, str]:
    """{msgid: msgstr} of a .po file without plural forms and contexts; untranslated entries are left out."""
    found: dict[str, str] = {}
    key, texts = "", {"msgid": "", "msgstr": ""}
    for line in [*path.read_text(encoding="utf-8").splitlines(), 'msgid ""']:
        if not (told := re.fullmatch(r'(?:(msgid|msgstr)\s+)?(".*")\s*', line)):
            continue
        if told[1] == "msgid":
            if texts["msgid"] and texts["msgstr"]:
                found[texts["msgid"]] = texts["msgstr"]
            texts = {"msgid": "", "msgstr": ""}
        key = told[1] or key
        texts[key] += ast.literal_eval(told[2])
    return found
