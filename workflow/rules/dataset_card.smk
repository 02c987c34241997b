rule card:
    """What a data set holds and what is missing for an honest figure; on request."""
    input:
        [f"results/{run.dataset}/card" for run in MAIN_RUNS],


rule write_card:
    """The card of one data set: page, text, Croissant metadata, measurements of every photograph."""
    input:
        unpack(regions_of_card),
        manifest="results/{dataset}/manifest.csv",
        ingest_report="results/{dataset}/ingest_report.json",
        surveys=collect("results/{{dataset}}/shards/{shard}.json", shard=SHARDS),
    output:
        directory("results/{dataset}/card"),
    log:
        "<logs>/{dataset}/card.log",
    benchmark:
        "<benchmarks>/{dataset}/card.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        content=content(labels=True),
        regions=lambda w, input: f"--regions {input.regions}" if input.get("regions") else "",
        about=lambda w: json.dumps(config["datasets"][w.dataset].get("about", {})),
        depth=depth_flag,
        seed=config["seed"],
        code=code_hash("dataset_card.card", "reporting/templates"),
    message:
        "Write the card of {wildcards.dataset}"
    shell:
        "python -m defectflow.dataset_card.card --name {wildcards.dataset} --manifest {input.manifest} --surveys {input.surveys}"
        " --ingest-report {input.ingest_report} {params.regions} --about {params.about:q} {params.depth} --seed {params.seed}"
        " --threads {threads} --out {output} 2>&1 | tee {log}"
