rule prior:
    """Register the annotated parts on each other: the baselines that every mask has to beat."""
    input:
        splits="results/{dataset}/annotated.csv",
        # A folder has no checksum; its table has one, and changes with it.
        pairs=ancient("results/{dataset}/sam_pairs"),
        table="results/{dataset}/pairs.csv",
        photographs=photographs_of_few,
    output:
        prior="results/{dataset}/prior.safetensors",
        report=report(
            "results/{dataset}/prior.json",
            caption="../report/prior.rst",
            category="2 Masks",
            labels={"data set": "{dataset}", "what": "held-out IoU of the baselines"},
        ),
    log:
        "<logs>/{dataset}/prior.log",
    benchmark:
        "<benchmarks>/{dataset}/prior.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 2
    resources:
        mem_mb=memory(1000),
        runtime=60,
    params:
        weights_hash=lambda w: weights_hash(None, "patch-nano.safetensors"),
        photographs=lambda w, input: option("--photographs", list(input.photographs)),
        depth=lambda w: depth_flag(w) if photographs_of_few(w) else "",
        seed=config["seed"],
        code=code_hash("parts.prior"),
    message:
        "Register the annotated parts of {wildcards.dataset} on each other"
    shell:
        "python -m defectflow.parts.prior --pairs {input.pairs} --table {input.table} --splits {input.splits}"
        " {params.photographs} {params.depth} --seed {params.seed} --out {output.prior} --report {output.report}"
        " 2>&1 | tee {log}"
