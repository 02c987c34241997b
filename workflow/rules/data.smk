rule survey:
    """Decode, measure and hash the photographs of one shard."""
    input:
        source=source_folder,
    output:
        table="results/{dataset}/shards/{shard}.csv",
        report="results/{dataset}/shards/{shard}.json",
    log:
        "<logs>/{dataset}/survey-{shard}.log",
    benchmark:
        "<benchmarks>/{dataset}/survey-{shard}.tsv"
    # All photographs are read before anything is computed from one of them: a broken one stops the run early.
    priority: 100
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=60,
    params:
        content=content(),
        images=images_flag,
        depth=depth_flag,
        shards=config["shards"],
        code=code_hash("data.survey"),
    message:
        "Read the photographs of shard {wildcards.shard} of {wildcards.dataset}"
    shell:
        "python -m defectflow.data.survey {params.images} --shard {wildcards.shard}/{params.shards} {params.depth} --threads {threads}"
        " --out {output.table} --report {output.report} 2>&1 | tee {log}"


rule ingest:
    """Check every photograph, annotation and label; write the table of images (manifest.csv)."""
    input:
        unpack(source_files),
        source=source_folder,
        surveys=collect("results/{{dataset}}/shards/{shard}.json", shard=SHARDS),
    output:
        manifest="results/{dataset}/manifest.csv",
        ground_truth=directory("results/{dataset}/ground_truth"),
        report=report(
            "results/{dataset}/ingest_report.json",
            caption="../report/ingest.rst",
            category="1 Data",
            labels={"data set": "{dataset}", "what": "checks"},
        ),
    log:
        "<logs>/{dataset}/ingest.log",
    benchmark:
        "<benchmarks>/{dataset}/ingest.tsv"
    priority: 100
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=60,
    params:
        content=content(labels=True, annotations=True),
        source=source_flags,
        found=lambda w: option("--found", source_of(w).get("found")),
        feedback=lambda w: option("--feedback", source_of(w).get("feedback")),
        depth=lambda w: f"{depth_flag(w)} {depth_given(w)}".strip(),
        on_problem=config["on_problem"],
        code=code_hash("data.ingest"),
    message:
        "Check every photograph, annotation and label of {wildcards.dataset}"
    shell:
        "python -m defectflow.data.ingest {params.source} {params.found} {params.feedback} {params.depth} --surveys {input.surveys}"
        " --on-problem {params.on_problem} --sheet results/{wildcards.dataset}/sheets/outlines.jpg --threads {threads}"
        " --ground-truth {output.ground_truth} --out {output.manifest} --report {output.report} 2>&1 | tee {log}"


rule sam_pairs:
    """COCO annotations to pairs of photograph and outline, as SA-1B has them."""
    input:
        unpack(source_files),
        source=source_folder,
    output:
        folder=directory("results/{dataset}/sam_pairs"),
        table="results/{dataset}/pairs.csv",
    log:
        "<logs>/{dataset}/sam_pairs.log",
    benchmark:
        "<benchmarks>/{dataset}/sam_pairs.tsv"
    priority: 50
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=60,
    params:
        content=content(annotated_only=True),
        source=source_flags,
        depth=depth_flag,
        code=code_hash("data.sam_pairs"),
    message:
        "Convert the COCO annotations of {wildcards.dataset} to SA-1B pairs"
    shell:
        "python -m defectflow.data.sam_pairs {params.source} {params.depth} --threads {threads} --out {output.folder}"
        " --table {output.table} 2>&1 | tee {log}"


rule split_annotated:
    """Split the annotated photographs by group, for the segmenters."""
    input:
        "results/{dataset}/pairs.csv",
    output:
        "results/{dataset}/annotated.csv",
    log:
        "<logs>/{dataset}/split_annotated.log",
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        seed=config["seed"],
        code=code_hash("data.split"),
    message:
        "Split the annotated images of {wildcards.dataset} by group, for segmentation"
    shell:
        "python -m defectflow.data.split --pairs {input} --seed {params.seed} --out {output} 2>&1 | tee {log}"


rule split:
    """Split the labelled photographs by group, for the detectors."""
    input:
        manifest=manifest_to_learn_from,
        annotated=lambda w: "results/{dataset}/annotated.csv" if is_annotated(w) else [],
    output:
        "results/{dataset}/splits.csv",
    log:
        "<logs>/{dataset}/split.log",
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        annotated=lambda w, input: option("--annotated", input.get("annotated")),
        unlabelled=lambda w: option("--learn-unlabelled", learns_unlabelled(w)),
        folds=config["folds"],
        seed=config["seed"],
        code=code_hash("data.split"),
    message:
        "Split the labelled images of {wildcards.dataset} by group, for detection"
    shell:
        "python -m defectflow.data.split --manifest {input.manifest} {params.annotated} {params.unlabelled} --folds {params.folds}"
        " --seed {params.seed} --out {output} 2>&1 | tee {log}"
