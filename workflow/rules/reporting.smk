rule render:
    """Heatmaps, overlays and contact sheets of one run."""
    input:
        regions=multiext("results/{dataset}/{segmenter}/{isolation}/{detector}/regions", ".csv", ".json"),
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
            patterns=["{sheet}.jpg"],
            caption="../report/sheets.rst",
            category="4 Pictures",
            labels={"run": "{segmenter}/{isolation}/{detector}", "what": "{sheet}"},
        ),
        done=touch("results/{dataset}/{segmenter}/{isolation}/{detector}/drawn.done"),
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
        settings=json.dumps(SETTINGS["drawing"].read_by("render")),
        depth=depth_flag,
        folders=lambda w, output: " ".join(option(f"--{kind}", path) for kind, path in output.items() if kind != "done"),
        code=code_hash("reporting.render"),
    message:
        "Draw heatmaps and overlays of {wildcards.segmenter}/{wildcards.isolation}/{wildcards.detector}"
    shell:
        "python -m defectflow.reporting.render --predictions {input.predictions} --metrics {input.metrics} --maps {input.maps}"
        " --regions {input.regions} {params.masks} --manifest {input.manifest} --settings {params.settings:q} {params.depth} --threads {threads}"
        " {params.folders} 2>&1 | tee {log}"


use rule render as triptychs with:
    """Photograph, masks and heatmap side by side, of every image of one run; on request."""
    output:
        triptychs=directory("results/{dataset}/{segmenter}/{isolation}/{detector}/triptychs"),
        done=touch("results/{dataset}/{segmenter}/{isolation}/{detector}/triptychs.done"),
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/triptychs.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/triptychs.tsv"
    message:
        "Draw triptychs of {wildcards.segmenter}/{wildcards.isolation}/{wildcards.detector}"


rule report:
    """One page about one run, to open from disk or to send to a colleague."""
    input:
        regions=multiext("results/{dataset}/{segmenter}/{isolation}/{detector}/regions", ".csv", ".json"),
        predictions="results/{dataset}/{segmenter}/{isolation}/{detector}/predictions.csv",
        metrics="results/{dataset}/{segmenter}/{isolation}/{detector}/metrics.json",
        fit="results/{dataset}/{segmenter}/{isolation}/{detector}/fit.json",
        ingest_report="results/{dataset}/ingest_report.json",
        maps=per_shard("maps/{shard}.safetensors"),
        masks=mask_tables,
        manifest="results/{dataset}/manifest.csv",
        labels=label_lists,
        kinds="results/{dataset}/{segmenter}/{isolation}/kinds" if SETTINGS["kinds"].join else [],
        refinement=refinement_of,
        # Whose size is told.
        features="results/{dataset}/{segmenter}/{isolation}/{detector}/features.json",
        banks="results/{dataset}/{segmenter}/{isolation}/{detector}/banks.safetensors",
        calibration="results/{dataset}/{segmenter}/{isolation}/{detector}/calibration.safetensors",
        isolated=all_picture_tables,
        drawn=drawn,
    output:
        report(
            "results/{dataset}/{segmenter}/{isolation}/{detector}/report.html",
            caption="../report/report.rst",
            category="3 Verdicts",
            labels={"run": "{segmenter}/{isolation}/{detector}", "what": "report"},
        ),
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/report.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/report.tsv"
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        masks=lambda w, input: f"--masks {input.masks}" if input.get("masks") else "",
        lists=lambda w, input: " ".join(list_flags(input.get("labels") or [])),
        kinds=lambda w, input: option("--kinds", f"{input.kinds}/kinds.json" if input.get("kinds") else None),
        refinement=lambda w, input: option("--refinement", input.get("refinement")),
        look=json.dumps(SETTINGS["drawing"].read_by("render")),
        depth=depth_flag,
        settings=lambda w: json.dumps(shown_settings(config, w, is_main(w))),
        disk=disk_flags,
        code=code_hash("reporting.report", "reporting/templates"),
    message:
        "Write the report of {wildcards.segmenter}/{wildcards.isolation}/{wildcards.detector}"
    shell:
        "python -m defectflow.reporting.report --predictions {input.predictions} --metrics {input.metrics} --fit {input.fit}"
        " --ingest-report {input.ingest_report}"
        " --maps {input.maps} --regions {input.regions} {params.masks} --manifest {input.manifest} {params.lists} {params.kinds} {params.refinement} --look {params.look:q} {params.depth} --settings {params.settings:q}"
        " --features {input.features} {params.disk} --out {output} 2>&1 | tee {log}"


rule leaderboard:
    """The main figures of all runs side by side."""
    input:
        metrics=collect("{run}/metrics.json", run=[run.folder for run in RUNS]),
        predictions=collect("{run}/predictions.csv", run=[run.folder for run in RUNS]),
        calibration=f"{MAIN_RUNS[0].folder}/calibration.csv",
        splits=f"results/{MAIN_RUNS[0].dataset}/splits.csv",
    output:
        table=report(
            f"results/{MAIN_RUNS[0].dataset}/leaderboard.csv",
            caption="../report/leaderboard.rst",
            category="3 Verdicts",
            labels={"run": "all", "what": "leaderboard, table"},
        ),
        page=report(
            f"results/{MAIN_RUNS[0].dataset}/leaderboard.html",
            caption="../report/leaderboard.rst",
            category="3 Verdicts",
            labels={"run": "all", "what": "leaderboard"},
        ),
    log:
        f"<logs>/{MAIN_RUNS[0].dataset}/leaderboard.log",
    localrule: True
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        seed=config["seed"],
        code=code_hash("reporting.leaderboard", "reporting/templates"),
    message:
        "Set the runs beside each other"
    shell:
        "python -m defectflow.reporting.leaderboard --metrics {input.metrics} --predictions {input.predictions}"
        " --calibration {input.calibration} --splits {input.splits} --seed {params.seed} --table {output.table} --page {output.page} 2>&1 | tee {log}"


rule categories:
    """A benchmark of several categories in one table, beside published figures."""
    input:
        [f"{run.folder}/metrics.json" for run in MAIN_RUNS],
    output:
        report(
            f"results/{config['dataset']}.csv",
            caption="../report/categories.rst",
            category="3 Verdicts",
            labels={"run": "all categories", "what": "beside published figures"},
        ),
    log:
        f"<logs>/{config['dataset']}.log",
    localrule: True
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        names=[run.dataset.removeprefix(f"{config['dataset']}-") for run in MAIN_RUNS],
        code=code_hash("reporting.categories"),
    message:
        "Set the categories of {config[dataset]} beside each other"
    shell:
        "python -m defectflow.reporting.categories --names {params.names} --metrics {input} --out {output} 2>&1 | tee {log}"
