rule check_labels:
    """Labelled photographs whose label their own look contradicts: to look at, never changed."""
    input:
        features=collect(
            "results/{{dataset}}/{{segmenter}}/{{isolation}}/{{detector}}/features/{shard}.safetensors", shard=SHARDS
        ),
        manifest="results/{dataset}/manifest.csv",
    output:
        table="results/{dataset}/{segmenter}/{isolation}/{detector}/labels_to_check.csv",
        looks="results/{dataset}/{segmenter}/{isolation}/{detector}/looks.safetensors",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/check_labels.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/check_labels.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        mem_mb=memory(2000),
        runtime=120,
    params:
        seed=config["seed"],
        code=code_hash("labelling.check_labels"),
    message:
        "Look for wrong labels in {wildcards.dataset} ({wildcards.isolation}, {wildcards.detector})"
    shell:
        "python -m defectflow.labelling.check_labels --features {input.features} --manifest {input.manifest}"
        " --threads {threads} --seed {params.seed} --looks {output.looks} --out {output.table} 2>&1 | tee {log}"


rule screen:
    """Photographs without a label that stand far from all others: not learned from where the others are."""
    input:
        features=collect(
            "results/{{dataset}}/{{segmenter}}/{{isolation}}/{{detector}}/features/{shard}.safetensors", shard=SHARDS
        ),
        manifest="results/{dataset}/manifest.csv",
    output:
        "results/{dataset}/{segmenter}/{isolation}/{detector}/candidates.csv",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/screen.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/screen.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        mem_mb=memory(2000),
        runtime=120,
    params:
        seed=config["seed"],
        code=code_hash("labelling.screen"),
    message:
        "Look for photographs of {wildcards.dataset} that stand far from all others ({wildcards.isolation}, {wildcards.detector})"
    shell:
        "python -m defectflow.labelling.screen --features {input.features} --manifest {input.manifest}"
        " --threads {threads} --seed {params.seed} --out {output} 2>&1 | tee {log}"


rule next_to_label:
    """The photographs without a label whose labels would say most."""
    input:
        looks="results/{dataset}/{segmenter}/{isolation}/{detector}/looks.safetensors",
        predictions="results/{dataset}/{segmenter}/{isolation}/{detector}/predictions.csv",
    output:
        "results/{dataset}/{segmenter}/{isolation}/{detector}/next_to_label.csv",
    log:
        "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/next_to_label.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/next_to_label.tsv"
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=60,
    params:
        code=code_hash("labelling.next_to_label"),
    message:
        "Choose the photographs of {wildcards.dataset} to label next ({wildcards.isolation}, {wildcards.detector})"
    shell:
        "python -m defectflow.labelling.next_to_label --looks {input.looks} --predictions {input.predictions}"
        " --out {output} 2>&1 | tee {log}"


rule next:
    """Print which photographs to label next: snakemake next."""
    input:
        [f"{run.folder}/next_to_label.csv" for run in MAIN_RUNS],
    log:
        "<logs>/next.log",
    localrule: True
    conda:
        "../../envs/defectflow.yaml"
    shell:
        'for table in {input}; do printf \'%s\\n\' "$table"; cat "$table"; done 2>&1 | tee {log}'
