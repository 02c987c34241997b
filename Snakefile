from snakemake.utils import min_version, validate

min_version("9.25")


configfile: "config.yaml"


include: "workflow/rules/common.smk"


report: "workflow/report/workflow.rst"


include: "workflow/rules/data.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/isolate.smk"
include: "workflow/rules/patchcore.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/pretrain.smk"


rule all:
    """Everything config.yaml asks for: metrics and pictures of the run, and the leaderboard."""
    default_target: True
    input:
        collect("{run}/metrics.json", run=[run.folder for run in RUNS]),
        f"{RUNS[0].folder}/overlays",
        "results/leaderboard.csv",
