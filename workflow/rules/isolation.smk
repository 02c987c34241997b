rule isolate:
    """Cut the part out of the photographs of one shard, in constant geometry and light."""
    input:
        unpack(extent_file),
        images="results/{dataset}/shards/{shard}.csv",
        masks=lambda w: "results/{dataset}/{segmenter}/masks/{shard}.csv" if segmenter_of(w).makes_masks else [],
    output:
        folder=directory("results/{dataset}/{segmenter}/{isolation}/images/{shard}"),
        table="results/{dataset}/{segmenter}/{isolation}/images/{shard}.csv",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/isolate-{shard}.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/isolate-{shard}.tsv"
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=60,
    params:
        settings=settings_for("isolations", "isolate"),
        masks=lambda w, input: " ".join(option(f"--{name}", input.get(name)) for name in ("masks", "pairs", "prior")),
        depth=depth_flag,
        code=code_hash("isolation.isolate"),
    message:
        "Isolate the part in shard {wildcards.shard} of {wildcards.dataset} ({wildcards.isolation})"
    shell:
        "python -m defectflow.isolation.isolate --manifest {input.images}"
        " {params.masks} --settings {params.settings:q} {params.depth} --threads {threads}"
        " --out-dir {output.folder} --table {output.table} 2>&1 | tee {log}"


rule picture_shape:
    """The size that the isolated pictures of all shards have in common."""
    input:
        tables=lambda w: [f"results/{{dataset}}/{{segmenter}}/{{isolation}}/images/{k}.csv" for k in SHARDS],
    output:
        "results/{dataset}/{segmenter}/{isolation}/picture_shape.json",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/picture_shape.log",
    localrule: True
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        tight=lambda w: option("--tight", isolation_of(w).tight),
        auto=option("--auto-size", any(entry.image_size == "auto" for entry in SETTINGS["detectors"].values())),
        code=code_hash("isolation.picture_shape"),
    message:
        "Find the shape of the pictures of {wildcards.dataset} ({wildcards.isolation})"
    shell:
        "python -m defectflow.isolation.picture_shape --tables {input.tables} {params.tight} {params.auto} --out {output} 2>&1 | tee {log}"


rule augment:
    """Weakly varied copies of the isolated pictures of one shard."""
    input:
        # Not the splits: other folds need no other copies, and would run the backbone again.
        manifest="results/{dataset}/manifest.csv",
        isolated="results/{dataset}/{segmenter}/{isolation}/images/{shard}.csv",
    output:
        folder=directory("results/{dataset}/{segmenter}/{isolation}/copies/{shard}"),
        table="results/{dataset}/{segmenter}/{isolation}/copies/{shard}.csv",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/augment-{shard}.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/augment-{shard}.tsv"
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        settings=json.dumps(SETTINGS["augmentation"].read_by("augment")),
        background=lambda w: option("--keep-background", isolation_of(w).background == "keep"),
        seed=config["seed"],
        code=code_hash("isolation.augment"),
    message:
        "Make weakly varied copies in shard {wildcards.shard} of {wildcards.dataset} ({wildcards.isolation})"
    shell:
        "python -m defectflow.isolation.augment --isolated {input.isolated} --manifest {input.manifest}"
        " --settings {params.settings:q} {params.background} --seed {params.seed}"
        " --out-dir {output.folder} --table {output.table} 2>&1 | tee {log}"
