"""Another workflow imports this one as a module and points it at its own data and results."""

import pytest
from conftest import Workflow, make_coco_set

OUTER = """
from snakemake.common.configfile import load_configfile

module inspection:
    snakefile: "defectflow/Snakefile"
    config: {**load_configfile("defectflow/config.yaml"), **load_configfile("inspection.yaml")}
    replace_prefix: {"results/": "inspected/"}

use rule * from inspection as inspection_*

rule all:
    default_target: True
    input: rules.inspection_all.input, "own.txt"

rule own:
    input: "inspected/bolts/splits.csv"
    output: "own.txt"
    shell: "wc -l < {input} > {output}"
"""


@pytest.fixture(scope="module")
def outer(tmp_path_factory) -> Workflow:
    workflow = Workflow(tmp_path_factory.mktemp("outer") / "defectflow")
    workflow.folder = workflow.folder.parent
    (workflow.folder / "Snakefile").write_text(OUTER)
    (workflow.folder / "inspection.yaml").write_text(
        "dataset: bolts\ndatasets: {bolts: {path: photographs}}\ncompare: []"
    )
    make_coco_set(workflow.folder / "photographs")
    return workflow


def test_every_rule_is_planned_with_the_results_in_the_place_of_the_other_workflow(outer):
    jobs = outer.jobs()
    assert jobs["inspection_fit"] == jobs["inspection_leaderboard"] == jobs["own"] == jobs["inspection_score"] == 1
    assert outer.jobs("inspected/bolts/template/crop/patchcore/metrics.json")["inspection_evaluate"] == 1


def test_a_rule_of_the_other_workflow_reads_what_ours_have_made(outer):
    result = outer.snakemake("--cores", "2", "own.txt")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (outer.folder / "own.txt").read_text().strip() == "15"
    assert not (outer.folder / "results").exists() or {p.name for p in (outer.folder / "results").iterdir()} <= {
        "logs", "benchmarks",
    }  # fmt: skip
    assert outer.jobs("own.txt") == {}
