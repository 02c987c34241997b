rule features:
    """Patch features of the pictures of one shard; pictures that have not changed keep theirs."""
    input:
        tables=picture_tables,
        weights=lambda w: ancient(detector_of(w).weights) if detector_of(w).weights else [],
    output:
        # Not deleted before the job: pictures that have not changed keep their patches.
        update("results/{dataset}/{segmenter}/{isolation}/{detector}/features/{shard}.safetensors"),
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
        weights=lambda w, input: option("--weights", input.get("weights")),
        weights_hash=lambda w: weights_hash(detector_of(w).weights, "patch-nano.safetensors"),
        start=network_start,
        device=config["device"],
        code=code_hash("detection.features"),
    message:
        "Extract patch features of shard {wildcards.shard} ({wildcards.isolation}, {wildcards.detector})"
    shell:
        "python -m defectflow.detection.features --tables {input.tables} --settings {params.settings:q}"
        " {params.weights} {params.start} --device {params.device} --threads {threads} --out {output} 2>&1 | tee {log}"


rule fit:
    """Memory banks of good patches, one per fold and one for everything else."""
    input:
        features=collect(
            "results/{{dataset}}/{{segmenter}}/{{isolation}}/{{detector}}/features/{shard}.safetensors", shard=SHARDS
        ),
        splits="results/{dataset}/splits.csv",
        left_out=candidates,
    output:
        banks="results/{dataset}/{segmenter}/{isolation}/{detector}/banks.safetensors",
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
        " --out {output.banks} --report {output.report} 2>&1 | tee {log}"


rule score:
    """Anomaly score and map of the pictures of one shard, by banks without them."""
    input:
        features="results/{dataset}/{segmenter}/{isolation}/{detector}/features/{shard}.safetensors",
        banks="results/{dataset}/{segmenter}/{isolation}/{detector}/banks.safetensors",
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
        "python -m defectflow.detection.score --features {input.features} --banks {input.banks} --splits {input.splits}"
        " --settings {params.settings:q} --device {params.device}"
        " --threads {threads} --scores {output.scores} --maps {output.maps} 2>&1 | tee {log}"


rule calibrate:
    """Scores and maps that thresholds are chosen on, by banks without the images to be judged."""
    input:
        features=collect(
            "results/{{dataset}}/{{segmenter}}/{{isolation}}/{{detector}}/features/{shard}.safetensors", shard=SHARDS
        ),
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
