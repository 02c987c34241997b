import shlex

import pytest
import yaml
from defectflow.reporting import next_commands


@pytest.fixture
def finished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/mine/none/none/patchcore"
    folder.mkdir(parents=True)
    for name in ("metrics.json", "report.html"):
        (folder / name).touch()
    for name in ("leaderboard.csv", "leaderboard.html"):
        (tmp_path / "results/mine" / name).touch()
    return "results/mine/none/none/patchcore"


def test_a_run_ends_with_its_own_paths_and_commands(finished):
    options = next_commands.config_options([], {"dataset": "mine", "datasets": {"mine": {"path": "data/mine"}}})
    lines = next_commands.closing_lines([finished], "results/mine/leaderboard.csv", options)
    assert lines == [
        f"Verdict:  python -m defectflow.reporting.summary {finished}",
        f"Report:   {finished}/report.html",
        "Compare:  results/mine/leaderboard.html",
        "Bundle:   snakemake --cores all bundle --config dataset=mine 'datasets={mine: {path: data/mine}}'",
        f"Inspect:  defectflow inspect {finished}/bundle new/*.jpg",
    ]
    without = next_commands.closing_lines([finished], "results/mine/leaderboard.csv", options, bundled=False)
    assert without == lines[:3]


def test_what_is_not_there_is_not_promised(finished, tmp_path):
    assert next_commands.closing_lines(["results/other/none/none/patchcore"], "results/other/leaderboard.csv") == []
    (tmp_path / finished / "report.html").unlink()
    assert not any(line.startswith("Report") for line in next_commands.closing_lines([finished], "no.csv"))


@pytest.mark.parametrize(
    "value",
    ["plain", "with a space", "a: b", "[x", "it's, odd", "", None, True, 3, 0.5, [1, "a, b"], {"k": {"l": [1.5]}}],
)
def test_a_setting_is_given_as_it_was_taken(value):
    flag, word = shlex.split(next_commands.config_options([], {"key": value}))
    assert flag == "--config" and yaml.safe_load(word.removeprefix("key=")) == value


def test_a_config_file_is_named_again():
    assert (
        next_commands.config_options(["my config.yaml"], {"seed": 1}) == "--configfile 'my config.yaml' --config seed=1"
    )
    assert next_commands.config_options([], {}) == ""


def test_a_bundle_that_is_there_needs_no_making(tmp_path):
    assert "snakemake --cores all" in next_commands.inspect_lines(tmp_path)[0]
    (tmp_path / "bundle").mkdir()
    (line,) = next_commands.inspect_lines(tmp_path)
    assert line.strip() == f"defectflow inspect {tmp_path}/bundle new/*.jpg"


@pytest.mark.parametrize(
    "value", ["2024", "1_0", "yes", "null", "1e3", "nan", "True", "~", "off", "end ", "it's", "a: b", '3"', "", "[x"]
)
def test_a_text_that_looks_like_a_number_stays_a_text(value):
    from snakemake.cli import parse_config

    _, word = shlex.split(next_commands.config_options([], {"dataset": value}))
    assert parse_config([word]) == {"dataset": value} and yaml.safe_load(word.removeprefix("dataset=")) == value
