rule kinds:
    """Which kind of defect photographs show, of each category; on request."""
    input:
        [f"results/{run.dataset}/{run.segmenter}/{run.isolation}/kinds" for run in MAIN_RUNS],


use rule features as kind_features with:
    """Patch features for the classifier of kinds, of the pictures of one shard."""
    input:
        tables="results/{dataset}/{segmenter}/{isolation}/images/{shard}.csv",
        weights=ancient(KINDS.weights) if KINDS.weights else [],
    output:
        patches=temp("results/{dataset}/{segmenter}/{isolation}/kind_features/{shard}.safetensors"),
        report="results/{dataset}/{segmenter}/{isolation}/kind_features/{shard}.json",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/kind_features-{shard}.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/kind_features-{shard}.tsv"
    params:
        settings=json.dumps(KINDS.read_by("features")),
        weights=lambda w, input: option("--weights", input.get("weights")),
        weights_hash=lambda w: weights_hash(KINDS.weights, "patch-nano.safetensors"),
        start=start_of(KINDS),
        device=config["device"],
        code=code_hash("detection.features"),
    message:
        "Extract patch features of shard {wildcards.shard} for kinds ({wildcards.isolation})"


rule describe:
    """What is unlike a good part in each photograph."""
    input:
        features=collect(
            "results/{{dataset}}/{{segmenter}}/{{isolation}}/kind_features/{shard}.safetensors", shard=SHARDS
        ),
        manifest="results/{dataset}/manifest.csv",
    output:
        "results/{dataset}/{segmenter}/{isolation}/kind_descriptors.safetensors",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/describe.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/describe.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        mem_mb=memory(2000),
        runtime=120,
    params:
        seed=config["seed"],
        code=code_hash("classification.describe"),
    message:
        "Describe what is unlike a good part in {wildcards.dataset} ({wildcards.isolation})"
    shell:
        "python -m defectflow.classification.describe --features {input.features} --manifest {input.manifest}"
        " --threads {threads} --seed {params.seed} --out {output} 2>&1 | tee {log}"


rule classify:
    """Learn good and kinds of defects, and say how well that works on held-out photographs."""
    input:
        "results/{dataset}/{segmenter}/{isolation}/kind_descriptors.safetensors",
    output:
        directory("results/{dataset}/{segmenter}/{isolation}/kinds"),
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/classify.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/classify.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        mem_mb=memory(2000),
        runtime=120,
    params:
        settings=json.dumps(KINDS.read_by("classify")),
        seed=config["seed"],
        code=code_hash("classification.classify", "reporting/templates"),
    message:
        "Learn the kinds of defects of {wildcards.dataset} ({wildcards.isolation})"
    shell:
        "python -m defectflow.classification.classify --name {wildcards.dataset} --descriptors {input}"
        " --settings {params.settings:q} --threads {threads} --seed {params.seed} --out {output} 2>&1 | tee {log}"
