rule kinds:
    """Which kind of defect photographs show, of each category; on request."""
    input:
        [f"results/{run.dataset}/{run.segmenter}/{run.isolation}/kinds" for run in MAIN_RUNS],


use rule features as kind_features with:
    """Patch features for the classifier of kinds, of the pictures of one shard."""
    input:
        tables="results/{dataset}/{segmenter}/{isolation}/images/{shard}.csv",
        shape=shape_of_kinds,
        weights=lambda w: ancient(kind_network(w).weights) if kind_network(w).weights else [],
    output:
        patches=temp("results/{dataset}/{segmenter}/{isolation}/kind_features/{network}/{shard}.safetensors"),
        report="results/{dataset}/{segmenter}/{isolation}/kind_features/{network}/{shard}.json",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/kind_features-{network}-{shard}.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/kind_features-{network}-{shard}.tsv"
    params:
        settings=lambda w: json.dumps(kind_network(w).read_by("features")),
        shape=lambda w: shape_that_counts(w, kind_network(w)),
        weights=lambda w, input: option("--weights", input.get("weights")),
        weights_hash=lambda w: weights_hash(kind_network(w).weights, "patch-nano.safetensors"),
        start=lambda w: start_of(kind_network(w)),
        made_with=lambda w: made_with(w, kind_network(w)),
        device=config["device"],
        code=code_hash("detection.features"),
    message:
        "Extract patch features of shard {wildcards.shard} for kinds ({wildcards.isolation}, {wildcards.network})"


rule describe:
    """What is unlike a good part in each photograph."""
    input:
        features=collect(
            "results/{{dataset}}/{{segmenter}}/{{isolation}}/kind_features/{{network}}/{shard}.safetensors",
            shard=SHARDS,
        ),
        manifest="results/{dataset}/manifest.csv",
    output:
        "results/{dataset}/{segmenter}/{isolation}/kind_descriptors/{network}.safetensors",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/describe-{network}.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/describe-{network}.tsv"
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
        "Describe what is unlike a good part in {wildcards.dataset} ({wildcards.isolation}, {wildcards.network})"
    shell:
        "python -m defectflow.classification.describe --features {input.features} --manifest {input.manifest}"
        " --threads {threads} --seed {params.seed} --out {output} 2>&1 | tee {log}"


rule finetune:
    """Train a network on kinds from whole pictures: one for each fold and one on all."""
    input:
        tables=collect("results/{{dataset}}/{{segmenter}}/{{isolation}}/images/{shard}.csv", shard=SHARDS),
        manifest="results/{dataset}/manifest.csv",
        weights=ancient(SETTINGS["kinds"].weights) if SETTINGS["kinds"].weights else [],
    output:
        "results/{dataset}/{segmenter}/{isolation}/kind_finetuned/own.safetensors",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/finetune.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/finetune.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        gpu=GPU,
        mem_mb=memory(4000),
        runtime=1440,
    params:
        settings=json.dumps(SETTINGS["kinds"].to_finetune()),
        weights=lambda w, input: option("--weights", input.get("weights")),
        weights_hash=weights_hash(SETTINGS["kinds"].weights, "patch-nano.safetensors"),
        downloads=option("--allow-downloads", config["allow_downloads"]),
        seed=config["seed"],
        device=config["device"],
        code=code_hash("classification.finetune"),
    message:
        "Train a network on the kinds of {wildcards.dataset} ({wildcards.isolation})"
    shell:
        "python -m defectflow.classification.finetune --tables {input.tables} --manifest {input.manifest}"
        " --settings {params.settings:q} {params.weights} {params.downloads} --device {params.device}"
        " --threads {threads} --seed {params.seed} --out {output} 2>&1 | tee {log}"


rule classify:
    """Learn good and kinds of defects, and say how well that works on held-out photographs."""
    input:
        kind_descriptors,
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
        settings=json.dumps(SETTINGS["kinds"].read_by("classify")),
        seed=config["seed"],
        code=code_hash("classification.classify", "reporting/templates"),
    message:
        "Learn the kinds of defects of {wildcards.dataset} ({wildcards.isolation})"
    shell:
        "python -m defectflow.classification.classify --name {wildcards.dataset} --descriptors {input}"
        " --settings {params.settings:q} --threads {threads} --seed {params.seed} --out {output} 2>&1 | tee {log}"


rule study:
    """What other networks, heads and ways to train bring, as the config lists them; on request."""
    input:
        kind_studies,


rule vary:
    """The variants of the study on the same held-out photographs."""
    input:
        collect(
            "results/{{dataset}}/{{segmenter}}/{{isolation}}/kind_descriptors/{network}.safetensors",
            network=KIND_NETWORKS,
        ),
    output:
        directory("results/{dataset}/{segmenter}/{isolation}/kind_study"),
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/vary.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/vary.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        mem_mb=memory(2000),
        runtime=240,
    params:
        descriptors=lambda w, input: [f"{Path(path).stem}={path}" for path in input],
        variants=json.dumps(
            [row._replace(settings=row.settings.read_by("classify"))._asdict() for row in KIND_VARIANTS]
        ),
        seed=config["seed"],
        code=code_hash("classification.vary", "reporting/templates"),
    message:
        "Compare the variants of the study of {wildcards.dataset} ({wildcards.isolation})"
    shell:
        "python -m defectflow.classification.vary --name {wildcards.dataset} --descriptors {params.descriptors:q}"
        " --variants {params.variants:q} --threads {threads} --seed {params.seed} --out {output} 2>&1 | tee {log}"


rule imbalance:
    """How kinds fare that are made rarer, and what each way to help them brings, of each category; on request."""
    input:
        [f"results/{run.dataset}/{run.segmenter}/{run.isolation}/kind_imbalance" for run in MAIN_RUNS],


rule thin_out:
    """Recall of frequent and rare kinds where the photographs to learn from are thinned out."""
    input:
        frozen_descriptors,
    output:
        directory("results/{dataset}/{segmenter}/{isolation}/kind_imbalance"),
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/thin_out.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/thin_out.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        mem_mb=memory(2000),
        runtime=120,
    params:
        strength=SETTINGS["kinds"].strength,
        seed=config["seed"],
        code=code_hash("classification.thin_out"),
    message:
        "Thin out the kinds of {wildcards.dataset} ({wildcards.isolation})"
    shell:
        "python -m defectflow.classification.thin_out --descriptors {input} --strength {params.strength}"
        " --threads {threads} --seed {params.seed} --out {output} 2>&1 | tee {log}"


rule class_maps:
    """Where a classifier of kinds looks, beside the detector's anomaly maps, of each category; on request."""
    input:
        [f"results/{run.dataset}/{run.segmenter}/{run.isolation}/{run.detector}/class_maps" for run in MAIN_RUNS],


rule draw_class_maps:
    """Class activation maps of photographs with a kind and a ground-truth mask."""
    input:
        features=collect(
            "results/{{dataset}}/{{segmenter}}/{{isolation}}/kind_features/own/{shard}.safetensors",
            shard=SHARDS,
        ),
        maps=per_shard("maps/{shard}.safetensors"),
        manifest="results/{dataset}/manifest.csv",
    output:
        directory("results/{dataset}/{segmenter}/{isolation}/{detector}/class_maps"),
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/class_maps.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/class_maps.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        strength=SETTINGS["kinds"].strength,
        depth=depth_flag,
        seed=config["seed"],
        code=code_hash("classification.class_maps"),
    message:
        "Draw class activation maps of {wildcards.dataset} ({wildcards.isolation}, {wildcards.detector})"
    shell:
        "python -m defectflow.classification.class_maps --features {input.features} --manifest {input.manifest}"
        " --maps {input.maps} --strength {params.strength} {params.depth} --threads {threads} --seed {params.seed}"
        " --out {output} 2>&1 | tee {log}"
