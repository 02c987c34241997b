rule evaluate:
    """Thresholds, verdicts, metrics with their uncertainty and charts of one run."""
    input:
        scores=per_shard("scores/{shard}.csv"),
        calibration="results/{dataset}/{segmenter}/{isolation}/{detector}/calibration.csv",
        calibration_maps="results/{dataset}/{segmenter}/{isolation}/{detector}/calibration.safetensors",
        maps=per_shard("maps/{shard}.safetensors"),
        masks=mask_tables,
        manifest="results/{dataset}/manifest.csv",
        splits="results/{dataset}/splits.csv",
        left_out=candidates,
        fit="results/{dataset}/{segmenter}/{isolation}/{detector}/fit.json",
        ingest_report="results/{dataset}/ingest_report.json",
        segmentation=segmentation_report,
        kinds="results/{dataset}/{segmenter}/{isolation}/kinds" if SETTINGS["kinds"].join else [],
    output:
        metrics=report(
            "results/{dataset}/{segmenter}/{isolation}/{detector}/metrics.json",
            caption="../report/metrics.rst",
            category="3 Verdicts",
            labels={"run": "{segmenter}/{isolation}/{detector}", "what": "metrics"},
        ),
        predictions=report(
            "results/{dataset}/{segmenter}/{isolation}/{detector}/predictions.csv",
            caption="../report/predictions.rst",
            category="3 Verdicts",
            labels={"run": "{segmenter}/{isolation}/{detector}", "what": "predictions"},
        ),
        robustness="results/{dataset}/{segmenter}/{isolation}/{detector}/robustness.csv",
        figures=report(
            directory("results/{dataset}/{segmenter}/{isolation}/{detector}/figures"),
            patterns=["{figure}.png"],
            caption="../report/figures.rst",
            category="3 Verdicts",
            labels={"run": "{segmenter}/{isolation}/{detector}", "what": "{figure}"},
        ),
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/evaluate.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/evaluate.tsv"
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        # No function of the input: Snakemake compares only params that are not derived from files.
        settings=lambda w: json.dumps(threshold_settings(config, w.detector, is_main(w))),
        review=option("--review", json.dumps(config["review"]) if config["review"] else None),
        masks=lambda w, input: f"--masks {input.masks}" if input.get("masks") else "",
        left_out=lambda w, input: option("--left-out", input.get("left_out")),
        segmentation=lambda w, input: option("--segmentation", input.get("segmentation")),
        kinds=lambda w, input: option("--kinds", f"{input.kinds}/kinds.csv" if input.get("kinds") else None),
        depth=depth_flag,
        seed=config["seed"],
        code=code_hash("evaluation.evaluate"),
    message:
        "Evaluate {wildcards.segmenter}/{wildcards.isolation}/{wildcards.detector} on {wildcards.dataset}"
    shell:
        "python -m defectflow.evaluation.evaluate --scores {input.scores} --calibration {input.calibration}"
        " --calibration-maps {input.calibration_maps} --maps {input.maps} {params.masks}"
        " --manifest {input.manifest} --splits {input.splits} --fit {input.fit}"
        " --ingest-report {input.ingest_report} {params.segmentation} {params.left_out} {params.kinds}"
        " --settings {params.settings:q} {params.review} {params.depth} --seed {params.seed} --metrics {output.metrics}"
        " --predictions {output.predictions} --robustness {output.robustness} --figures {output.figures} 2>&1 | tee {log}"


rule boxes:
    """Damaged regions of one run as boxes: a table, and COCO results."""
    input:
        unpack(source_files),
        folder=source_folder,
        predictions="results/{dataset}/{segmenter}/{isolation}/{detector}/predictions.csv",
        maps=per_shard("maps/{shard}.safetensors"),
        masks=mask_tables,
        manifest="results/{dataset}/manifest.csv",
    output:
        table=f"results/{{dataset}}/{{segmenter}}/{{isolation}}/{{detector}}/{MAP_REGIONS}.csv",
        coco=f"results/{{dataset}}/{{segmenter}}/{{isolation}}/{{detector}}/{MAP_REGIONS}.json",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/boxes.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/boxes.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        # The ids of its photographs, which are in no table that ingest writes.
        content=content(annotations=True),
        masks=lambda w, input: f"--masks {input.masks}" if input.get("masks") else "",
        annotations=lambda w: option("--annotations", source_of(w)["annotations"]),
        images=lambda w: option("--images", source_of(w)["images"] if is_annotated(w) else None),
        settings=json.dumps(SETTINGS["regions"].read_by("boxes")),
        code=code_hash("evaluation.boxes"),
    message:
        "Find damaged regions of {wildcards.segmenter}/{wildcards.isolation}/{wildcards.detector}"
    shell:
        "python -m defectflow.evaluation.boxes --predictions {input.predictions} --maps {input.maps} {params.masks}"
        " --manifest {input.manifest} {params.annotations} {params.images} --settings {params.settings:q} --threads {threads}"
        " --table {output.table} --coco {output.coco} 2>&1 | tee {log}"
