rule features:
    """Patch features of the pictures of one shard; pictures that have not changed keep theirs."""
    input:
        tables=picture_tables,
        shape=shape_file,
        weights=lambda w: ancient(detector_of(w).weights) if detector_of(w).weights else [],
    output:
        # Not deleted before the job: pictures that have not changed keep their patches.
        patches=update("results/{dataset}/{segmenter}/{isolation}/{detector}/features/{shard}.safetensors"),
        report="results/{dataset}/{segmenter}/{isolation}/{detector}/features/{shard}.json",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/features-{shard}.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/features-{shard}.tsv"
    conda:
        "../../envs/defectflow.yaml"
    resources:
        gpu=GPU,
        mem_mb=memory(3000),
        runtime=120,
    params:
        settings=settings_for("detectors", "features"),
        shape=lambda w: shape_that_counts(w, detector_of(w)),
        weights=lambda w, input: option("--weights", input.get("weights")),
        weights_hash=lambda w: weights_hash(detector_of(w).weights, "patch-nano.safetensors"),
        start=network_start,
        made_with=lambda w: made_with(w, detector_of(w)),
        device=config["device"],
        code=code_hash("detection.features"),
    message:
        "Extract patch features of shard {wildcards.shard} ({wildcards.isolation}, {wildcards.detector})"
    shell:
        "python -m defectflow.detection.features --tables {input.tables} --shape {input.shape}"
        " --settings {params.settings:q} {params.weights} {params.start} --device {params.device} --threads {threads} --out {output.patches}"
        " --made-with {params.made_with} --report {output.report} 2>&1 | tee {log}"


rule fit:
    """Memory banks of good patches, one per fold and one for everything else."""
    input:
        features=per_shard("features/{shard}.safetensors"),
        feature_reports=per_shard("features/{shard}.json"),  # stay where the features do not
        splits="results/{dataset}/splits.csv",
        left_out=candidates,
    output:
        banks="results/{dataset}/{segmenter}/{isolation}/{detector}/banks.safetensors",
        fold_banks="results/{dataset}/{segmenter}/{isolation}/{detector}/fold_banks.safetensors",
        report="results/{dataset}/{segmenter}/{isolation}/{detector}/fit.json",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/fit.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/fit.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        gpu=GPU,
        mem_mb=memory(4000),
        runtime=240,
    params:
        settings=settings_for("detectors", "fit"),
        left_out=lambda w, input: option("--leave-out", input.get("left_out")),
        seed=config["seed"],
        device=config["device"],
        code=code_hash("detection.fit"),
    message:
        "Fit {wildcards.detector} on the good images of {wildcards.dataset} ({wildcards.isolation})"
    shell:
        "python -m defectflow.detection.fit --features {input.features} --splits {input.splits} {params.left_out}"
        " --settings {params.settings:q}"
        " --seed {params.seed} --device {params.device} --threads {threads}"
        " --out {output.banks} --fold-banks {output.fold_banks} --report {output.report} 2>&1 | tee {log}"


rule score:
    """Anomaly score and map of the pictures of one shard, by banks without them."""
    input:
        features="results/{dataset}/{segmenter}/{isolation}/{detector}/features/{shard}.safetensors",
        feature_report="results/{dataset}/{segmenter}/{isolation}/{detector}/features/{shard}.json",
        banks="results/{dataset}/{segmenter}/{isolation}/{detector}/banks.safetensors",
        fold_banks="results/{dataset}/{segmenter}/{isolation}/{detector}/fold_banks.safetensors",
        splits="results/{dataset}/splits.csv",
    output:
        scores="results/{dataset}/{segmenter}/{isolation}/{detector}/scores/{shard}.csv",
        maps="results/{dataset}/{segmenter}/{isolation}/{detector}/maps/{shard}.safetensors",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/score-{shard}.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/score-{shard}.tsv"
    conda:
        "../../envs/defectflow.yaml"
    resources:
        gpu=GPU,
        mem_mb=memory(3000),
        runtime=60,
    params:
        settings=settings_for("detectors", "score"),
        device=config["device"],
        code=code_hash("detection.score"),
    message:
        "Score shard {wildcards.shard} of {wildcards.dataset} ({wildcards.isolation}, {wildcards.detector})"
    shell:
        "python -m defectflow.detection.score --features {input.features} --banks {input.banks}"
        " --fold-banks {input.fold_banks} --splits {input.splits} --settings {params.settings:q} --device {params.device}"
        " --threads {threads} --scores {output.scores} --maps {output.maps} 2>&1 | tee {log}"


rule calibrate:
    """Scores and maps that thresholds are chosen on, by banks without the images to be judged."""
    input:
        features=per_shard("features/{shard}.safetensors"),
        feature_reports=per_shard("features/{shard}.json"),  # stay where the features do not
        splits="results/{dataset}/splits.csv",
        left_out=candidates,
    output:
        table="results/{dataset}/{segmenter}/{isolation}/{detector}/calibration.csv",
        maps="results/{dataset}/{segmenter}/{isolation}/{detector}/calibration.safetensors",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/calibrate.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/calibrate.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        gpu=GPU,
        mem_mb=memory(4000),
        runtime=480,
    params:
        settings=settings_for("detectors", "fit", "score"),
        left_out=lambda w, input: option("--leave-out", input.get("left_out")),
        seed=config["seed"],
        device=config["device"],
        code=code_hash("detection.calibrate"),
    message:
        "Score the labelled images of {wildcards.dataset} for the choice of thresholds ({wildcards.isolation}, {wildcards.detector})"
    shell:
        "python -m defectflow.detection.calibrate --features {input.features} --splits {input.splits} {params.left_out}"
        " --settings {params.settings:q}"
        " --seed {params.seed} --device {params.device} --threads {threads}"
        " --out {output.table} --maps {output.maps} 2>&1 | tee {log}"


rule keep_features:
    """Leave patch features for later runs, or free their disk: nothing reads them any more."""
    input:
        reports=per_shard("features/{shard}.json"),
        banks="results/{dataset}/{segmenter}/{isolation}/{detector}/banks.safetensors",
        calibration="results/{dataset}/{segmenter}/{isolation}/{detector}/calibration.csv",
        scores=per_shard("scores/{shard}.csv"),
        labels=lambda w: label_lists(w)[:1],
    output:
        "results/{dataset}/{segmenter}/{isolation}/{detector}/features.json",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/keep_features.log",
    localrule: True
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        keep=config["keep_features"],
        code=code_hash("detection.keep_features"),
    message:
        "Keep the patch features of {wildcards.isolation}/{wildcards.detector}, or free their disk"
    shell:
        "python -m defectflow.detection.keep_features --reports {input.reports} --banks {input.banks}"
        " --keep {params.keep} --out {output} 2>&1 | tee {log}"


rule clean_features:
    """Free the disk that patch features and banks of folds take, of all runs on the data set; on request."""
    log:
        "<logs>/clean_features.log",
    localrule: True
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        folders=[f"results/{run.dataset}" for run in MAIN_RUNS],
        code=code_hash("detection.clean_features"),
    message:
        "Free the disk that patch features take"
    shell:
        "python -m defectflow.detection.clean_features {params.folders} 2>&1 | tee {log}"


rule reconstructions:
    """What the autoencoder of the run that the config asks for draws of each photograph; on request."""
    input:
        [f"{run.folder}/reconstructions" for run in MAIN_RUNS],


rule draw_reconstructions:
    """What an autoencoder draws of each photograph, beside it."""
    input:
        features=features_to_draw,
        feature_reports=per_shard("features/{shard}.json"),  # stay where the features do not
        scores=per_shard("scores/{shard}.csv"),
        banks="results/{dataset}/{segmenter}/{isolation}/{detector}/banks.safetensors",
        fold_banks="results/{dataset}/{segmenter}/{isolation}/{detector}/fold_banks.safetensors",
    output:
        directory("results/{dataset}/{segmenter}/{isolation}/{detector}/reconstructions"),
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/reconstructions.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/reconstructions.tsv"
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        settings=settings_for("detectors", "score"),
        code=code_hash("detection.reconstructions"),
    message:
        "Draw what {wildcards.detector} reconstructs of the photographs of {wildcards.dataset}"
    shell:
        "python -m defectflow.detection.reconstructions --features {input.features} --scores {input.scores}"
        " --banks {input.banks} --fold-banks {input.fold_banks} --settings {params.settings:q} --threads {threads}"
        " --out {output} 2>&1 | tee {log}"


rule profiles:
    """The outline of each part in its tolerance band, of the run that the config asks for first; on request."""
    input:
        [f"{run.folder}/profiles" for run in MAIN_RUNS],


rule draw_profiles:
    """Where the outline of each part leaves the tolerance band of good parts."""
    input:
        features=features_with_outlines,
        feature_reports=per_shard("features/{shard}.json"),  # stay where the features do not
        scores=per_shard("scores/{shard}.csv"),
        banks="results/{dataset}/{segmenter}/{isolation}/{detector}/banks.safetensors",
        fold_banks="results/{dataset}/{segmenter}/{isolation}/{detector}/fold_banks.safetensors",
        predictions="results/{dataset}/{segmenter}/{isolation}/{detector}/predictions.csv",
    output:
        directory("results/{dataset}/{segmenter}/{isolation}/{detector}/profiles"),
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/profiles.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/profiles.tsv"
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        settings=settings_for("detectors", "score"),
        code=code_hash("detection.profiles"),
    message:
        "Draw the outlines of the photographs of {wildcards.dataset} in their tolerance bands"
    shell:
        "python -m defectflow.detection.profiles --features {input.features} --scores {input.scores}"
        " --banks {input.banks} --fold-banks {input.fold_banks} --predictions {input.predictions}"
        " --settings {params.settings:q} --threads {threads} --out {output} 2>&1 | tee {log}"


rule normal_embed:
    """The centroid of good photographs and its threshold in one file, for use elsewhere."""
    input:
        banks="results/{dataset}/{segmenter}/{isolation}/{detector}/banks.safetensors",
        metrics="results/{dataset}/{segmenter}/{isolation}/{detector}/metrics.json",
    output:
        "results/{dataset}/{segmenter}/{isolation}/{detector}/normal_embed.json",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/normal_embed.log",
    localrule: True
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        code=code_hash("detection.normal_embed"),
    message:
        "Put the centroid of {wildcards.dataset} and its threshold into one file"
    shell:
        "python -m defectflow.detection.normal_embed --banks {input.banks} --metrics {input.metrics} --out {output}"
        " 2>&1 | tee {log}"
