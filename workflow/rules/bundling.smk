rule bundle:
    """The inspector of the run that the config asks for, as one folder, of each category; on request."""
    input:
        [f"{run.folder}/bundle" for run in MAIN_RUNS],


rule write_bundle:
    """One folder that judges new photographs without the workflow."""
    input:
        unpack(bundle_files),
        banks="results/{dataset}/{segmenter}/{isolation}/{detector}/banks.safetensors",
        fold_banks="results/{dataset}/{segmenter}/{isolation}/{detector}/fold_banks.safetensors",
        fit="results/{dataset}/{segmenter}/{isolation}/{detector}/fit.json",
        maps=per_shard("maps/{shard}.safetensors"),
        metrics="results/{dataset}/{segmenter}/{isolation}/{detector}/metrics.json",
        predictions="results/{dataset}/{segmenter}/{isolation}/{detector}/predictions.csv",
        manifest="results/{dataset}/manifest.csv",
        splits="results/{dataset}/splits.csv",
        kinds=kinds_to_bundle,
        weights=lambda w: ancient(detector_of(w).weights) if detector_of(w).weights else [],
    output:
        directory("results/{dataset}/{segmenter}/{isolation}/{detector}/bundle"),
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/bundle.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/bundle.tsv"
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(3000),
        runtime=60,
    params:
        entries=bundled,
        name="{dataset}/{segmenter}/{isolation}/{detector}",
        files=lambda w, input: " ".join(
            option(f"--{name.replace('_', '-')}", input.get(name))
            for name in ("prior", "model", "train_json", "checkpoint", "encoder", "decoder", "pairs", "weights")
        ),
        weights_hash=lambda w: weights_hash(detector_of(w).weights, "patch-nano.safetensors"),
        kinds=lambda w, input: option("--kinds", f"{input.kinds}/namer.safetensors" if input.get("kinds") else None),
        downloads=option("--allow-downloads", config["allow_downloads"]),
        seed=config["seed"],
        depth=depth_flag,
        code=code_hash("bundling.bundle", "bundling/templates"),
    message:
        "Bundle the inspector {wildcards.segmenter}/{wildcards.isolation}/{wildcards.detector} of {wildcards.dataset}"
    shell:
        "python -m defectflow.bundling.bundle --entries {params.entries:q} --name {params.name} {params.files} {params.kinds}"
        " --banks {input.banks} --fold-banks {input.fold_banks} --fit {input.fit} --maps {input.maps} --metrics {input.metrics}"
        " --predictions {input.predictions} --manifest {input.manifest} --splits {input.splits} {params.downloads} {params.depth} --seed {params.seed}"
        " --threads {threads} --out {output} 2>&1 | tee {log}"
