rule export_labels:
    """The part and the damaged regions of the run that the config asks for, for an annotation tool; on request."""
    input:
        [f"{run.folder}/labels/{config['label_format']}" for run in MAIN_RUNS],


rule write_labels:
    """Masks of the part and damaged regions of one run as labels of a tool or a training program."""
    input:
        regions=multiext("results/{dataset}/{segmenter}/{isolation}/{detector}/regions", ".csv", ".json"),
        predictions="results/{dataset}/{segmenter}/{isolation}/{detector}/predictions.csv",
        masks=mask_tables,
        manifest="results/{dataset}/manifest.csv",
    output:
        directory("results/{dataset}/{segmenter}/{isolation}/{detector}/labels/{label_format}"),
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/labels-{label_format}.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/labels-{label_format}.tsv"
    wildcard_constraints:
        label_format="[a-z_]+",
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        masks=lambda w, input: f"--masks {input.masks}" if input.get("masks") else "",
        images=lambda w: option("--images", source_of(w)["images"]),
        depth=depth_flag,
        code=code_hash("label_export.export_labels"),
    message:
        "Write the labels of {wildcards.segmenter}/{wildcards.isolation}/{wildcards.detector} as {wildcards.label_format}"
    shell:
        "python -m defectflow.label_export.export_labels --format {wildcards.label_format} --predictions {input.predictions}"
        " --regions {input.regions} {params.masks} --manifest {input.manifest} {params.images} {params.depth} --threads {threads}"
        " --out {output} 2>&1 | tee {log}"
