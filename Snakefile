from snakemake.utils import min_version, validate

min_version("9.25")


configfile: "config.yaml"


include: "workflow/rules/common.smk"


report: "workflow/report/workflow.rst"


include: "workflow/rules/demo.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/parts.smk"
include: "workflow/rules/finding.smk"
include: "workflow/rules/segmentation.smk"
include: "workflow/rules/isolation.smk"
include: "workflow/rules/detection.smk"
include: "workflow/rules/labelling.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/refinement.smk"
include: "workflow/rules/reporting.smk"
include: "workflow/rules/label_export.smk"
include: "workflow/rules/dataset_card.smk"
include: "workflow/rules/classification.smk"
include: "workflow/rules/bundling.smk"
include: "workflow/rules/pretraining.smk"


rule all:
    """Everything config.yaml asks for: metrics and pictures of the run, and the leaderboard."""
    default_target: True
    input:
        sorted({step for run in RUNS for step in steps_of(run)}),
        [f"{run.folder}/report.html" for run in RUNS],
        [f"{run.folder}/normal_embed.json" for run in RUNS if detector_of(run).name == "centroid"],
        [f"{run.folder}/overlays" for run in MAIN_RUNS],
        [f"{run.folder}/triptychs" for run in MAIN_RUNS if config["drawing"]["triptychs"]],
        BOARD,
