"""The words of the desk in other languages: none is missing, and none loses what is filled in."""

import re

import pytest
from defectflow.desk import translation
from defectflow.desk.pages import HERE, PAGES
from defectflow.desk.running import choices, setting_forms, stages
from desk_client import Desk

TEXT = r'"((?:[^"\\]|\\.)*)"'
LANGUAGES = [code for code in translation.languages() if code != "en"]


def texts():
    """All English texts of templates, scripts and tables."""
    found = {page.title for page in PAGES} | set(stages.WORDS.values()) | set(setting_forms.TITLES)
    for path in (HERE / "templates").glob("*.html"):
        text = path.read_text()
        found |= set(re.findall(rf"\b_\({TEXT}\)", text)) | set(re.findall(r"\b_\('([^']*)'\)", text))
    for path in (HERE / "static").glob("*.js"):
        text = path.read_text()
        found |= set(re.findall(rf"\bt\({TEXT}", text))
        found |= {one for pair in re.findall(rf"\bplural\([^\"]*{TEXT}, {TEXT}", text) for one in pair}
    for question in choices.QUESTIONS:
        found |= {
            question.words,
            *(text for option in question.options for text in (option.words, option.more) if text),
        }
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated_and_keeps_what_is_filled_in(language):
    catalog = translation.words(language).catalog
    assert not sorted(texts() - catalog.keys())
    assert not sorted(catalog.keys() - texts() - {"English"})  # nothing is left of pages that are gone
    for english, other in catalog.items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", other)), english
        assert (english[:1] == " ") == (other[:1] == " ")


def test_the_language_is_the_chosen_one_or_that_of_the_browser(tmp_path):
    desk = Desk(tmp_path / "part")
    assert "<h1>Labels</h1>" in desk.client.get("/labels").text
    assert "<h1>Beschriftung</h1>" in desk.client.get("/labels", headers={"Accept-Language": "fr, de-CH;q=0.8"}).text
    desk.post("/api/language/de")
    assert 'lang="de"' in desk.client.get("/runs").text
    desk.post("/api/language/en")
    assert 'lang="en"' in desk.client.get("/runs", headers={"Accept-Language": "de"}).text
    desk.post("/api/language/xx", status=422)


def test_a_catalog_is_read_as_gettext_writes_it(tmp_path):
    path = tmp_path / "xx.po"
    path.write_text(
        '# note\nmsgid ""\nmsgstr "Language: xx\\n"\n\n#: a.js\nmsgid "one "\n"two"\nmsgstr ""\n"eins \\"zwei\\""\n\n'
        'msgid "no"\nmsgstr ""\n'
    )
    assert translation.read_catalog(path) == {"one two": 'eins "zwei"'}
