"""The folder of the desk: what the commands would use, and no way out of it."""

import pytest
import yaml
from defectflow.core.files import UserError
from defectflow.desk.project import ROOT, Project, folder_for
from desk_client import photograph


def test_a_new_folder_is_one_that_the_workflow_reads(tmp_path):
    project = Project(tmp_path / "Möbel 1")
    entry = {"images": "photographs", "labels": "labels.csv"}
    assert project.settings() == {"dataset": "Mobel_1", "compare": [], "datasets": {"Mobel_1": entry}}
    assert project.labels.read_text() == "filename,label,defect_type\n" and project.photographs.is_dir()
    words = project.snakemake("--cores", "1")
    assert words[:3] == ["snakemake", "--snakefile", str(ROOT / "Snakefile")] and words[-2:] == ["--cores", "1"]
    assert oct(project.state.stat().st_mode & 0o777) == "0o700"
    project.config.write_text(project.config.read_text() + "seed: 3\n")
    assert Project(project.folder).settings()["seed"] == 3


@pytest.mark.parametrize(
    "text", ["dataset: [", "- 1", "dataset: a\ndatasets: {b: {}}", "dataset: a\ndatasets: {a: {path: .}}"]
)
def test_a_config_of_somebody_else_is_refused(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml"):
        Project(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(UserError, match="not a folder"):
        Project(tmp_path / "a")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../a",
        "a/../b",
        "/etc/passwd",
        "a//b",
        "./a",
        "a\\b",
        "a\0b",
        "a\nb",
        "evil\u202egnp.a",
        "\udcff.png",
        "x" * 1001,
        "out/a",
    ],
)
def test_names_do_not_lead_out(tmp_path, name):
    project = Project(tmp_path / "part")
    (project.photographs / "out").symlink_to(tmp_path)
    (tmp_path / "a").write_text("secret")
    with pytest.raises(UserError):
        project.path_inside(name, project.photographs)


def test_names_inside_and_links_that_are_allowed(tmp_path):
    project = Project(tmp_path / "part")
    assert project.path_inside("labels.csv") == project.labels
    assert project.path_inside("ä ö/ü.png", project.photographs) == project.photographs / "ä ö/ü.png"
    (tmp_path / "other").mkdir()
    (project.photographs / "other").symlink_to(tmp_path / "other")
    project.change_entry({"links": [str(tmp_path / "other")]})
    assert project.path_inside("other/a.png", project.photographs) == project.photographs / "other/a.png"


def test_settings_change_and_the_rest_of_the_file_stays(tmp_path):
    project = Project(tmp_path / "part")
    before = project.config.read_text()
    project.change_settings({"threshold": "max_fpr", "threshold_options": {"max_fpr": 0.05}})
    assert project.config.read_text().startswith(before) and project.settings()["threshold_options"] == {
        "max_fpr": 0.05
    }
    project.change_settings({"threshold": None, "threshold_options": None})
    assert project.config.read_text() == before
    project.change_entry({"part": "whole"})
    assert project.settings()["datasets"]["part"]["part"] == "whole" and "compare: []    " in project.config.read_text()


def test_yaml_that_cannot_be_changed_in_place_stays(tmp_path):
    project = Project(tmp_path / "part")
    text = yaml.safe_dump(project.settings(), default_flow_style=True)
    project.config.write_text(text)
    with pytest.raises(UserError, match="by hand"):
        project.change_settings({"compare": None})
    assert project.config.read_text() == text


def test_what_fails_in_the_database_changes_nothing(tmp_path):
    project = Project(tmp_path / "part")
    with project.database() as database:
        database.execute("CREATE TABLE a (b)")
    with pytest.raises(ZeroDivisionError), project.database() as database:
        database.execute("INSERT INTO a VALUES (1)")
        1 / 0  # noqa: B018
    with project.database() as database:
        assert database.execute("SELECT count(*) FROM a").fetchone()[0] == 0


def test_a_folder_of_photographs_stays_as_it_is(tmp_path):
    photographs = tmp_path / "mine"
    (photographs / "good").mkdir(parents=True)
    assert folder_for(photographs) == photographs
    (photographs / "good/a.png").write_bytes(photograph(1))
    assert folder_for(photographs) == tmp_path / "mine-desk"
    desk = Project(tmp_path / "mine-desk")
    (desk.photographs / "a.png").write_bytes(photograph(1))
    assert folder_for(desk.folder) == desk.folder
