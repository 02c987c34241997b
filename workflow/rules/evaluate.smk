rule evaluate:
    """Thresholds, verdicts, metrics with their uncertainty and charts of one run."""
    input:
        scores=per_shard("scores/{shard}.csv"),
        maps=per_shard("maps/{shard}.safetensors"),
        masks=mask_tables,
        manifest="results/{dataset}/manifest.csv",
        splits="results/{dataset}/splits.csv",
        fit="results/{dataset}/{segmenter}/{isolation}/{detector}/fit.json",
        segmentation=segmentation_report,
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
        verdict=f"--threshold {config['threshold']} {words(config['threshold_options'])}",
        review=f"--review {words(config['review'])}" if config["review"] else "",
        masks=lambda w, input: f"--masks {input.masks}" if input.get("masks") else "",
        segmentation=lambda w, input: option("--segmentation", input.get("segmentation")),
        seed=config["seed"],
        code=code_hash("evaluate"),
    message:
        "Evaluate {wildcards.segmenter}/{wildcards.isolation}/{wildcards.detector} on {wildcards.dataset}"
    shell:
        "python -m defectflow.evaluate --scores {input.scores} --maps {input.maps} {params.masks}"
        " --manifest {input.manifest} --splits {input.splits} --fit {input.fit} {params.segmentation}"
        " {params.verdict} {params.review} --seed {params.seed} --metrics {output.metrics}"
        " --predictions {output.predictions} --figures {output.figures} 2>&1 | tee {log}"


rule render:
    """Heatmaps, overlays and contact sheets of one run."""
    input:
        predictions="results/{dataset}/{segmenter}/{isolation}/{detector}/predictions.csv",
        metrics="results/{dataset}/{segmenter}/{isolation}/{detector}/metrics.json",
        maps=per_shard("maps/{shard}.safetensors"),
        masks=mask_tables,
        manifest="results/{dataset}/manifest.csv",
    output:
        heatmaps=directory("results/{dataset}/{segmenter}/{isolation}/{detector}/heatmaps"),
        overlays=directory("results/{dataset}/{segmenter}/{isolation}/{detector}/overlays"),
        sheets=report(
            directory("results/{dataset}/{segmenter}/{isolation}/{detector}/sheets"),
            patterns=["{sheet}.png"],
            caption="../report/sheets.rst",
            category="4 Pictures",
            labels={"run": "{segmenter}/{isolation}/{detector}", "what": "{sheet}"},
        ),
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/render.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/render.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        mem_mb=memory(4000),
        runtime=120,
    params:
        masks=lambda w, input: f"--masks {input.masks}" if input.get("masks") else "",
        code=code_hash("render"),
    message:
        "Draw heatmaps and overlays of {wildcards.segmenter}/{wildcards.isolation}/{wildcards.detector}"
    shell:
        "python -m defectflow.render --predictions {input.predictions} --metrics {input.metrics} --maps {input.maps}"
        " {params.masks} --manifest {input.manifest} --threads {threads} --heatmaps {output.heatmaps}"
        " --overlays {output.overlays} --sheets {output.sheets} 2>&1 | tee {log}"


rule leaderboard:
    """The main figures of all runs side by side."""
    input:
        collect("{run}/metrics.json", run=[run.folder for run in RUNS]),
    output:
        report("results/leaderboard.csv", caption="../report/leaderboard.rst", category="3 Verdicts"),
    log:
        "<logs>/leaderboard.log",
    localrule: True
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        main="/".join(RUNS[0]),
        code=code_hash("leaderboard"),
    message:
        "Set the runs beside each other"
    shell:
        "python -m defectflow.leaderboard --metrics {input} --main {params.main} --out {output} 2>&1 | tee {log}"
