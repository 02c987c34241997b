# Our own weights, made again: snakemake --cores all pretrain_backbone. No part of `all`: the package ships the result.


rule pretrain_backbone:
    input:
        pool=ancient(config["pretrain"]["pool"]),
        teacher=ancient(config["pretrain"]["teacher_weights"]),
    output:
        weights="results/pretrain/patch-nano/patch-nano.safetensors",
        figures="results/pretrain/patch-nano/patch-nano.json",
        card="results/pretrain/patch-nano/patch-nano.md",
        curve="results/pretrain/patch-nano/curve.csv",
    log:
        "<logs>/pretrain/patch-nano.log",
    benchmark:
        "<benchmarks>/pretrain/patch-nano.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        gpu=GPU,
        mem_mb=6000,
        runtime=int(config["pretrain"]["minutes"] * 1.5) + 10,
    params:
        folder=subpath(output.weights, parent=True),
        teacher=config["pretrain"]["teacher_name"],
        minutes=config["pretrain"]["minutes"],
        seed=config["seed"],
        device=config["device"],
        code=code_hash("pretrain_backbone"),
    message:
        "Distil patch-nano from {params.teacher} for {params.minutes} minutes"
    # The checkpoint lies beside the outputs, which Snakemake removes when a job fails; it does not, so --resume works.
    shell:
        "python -m defectflow.pretrain_backbone --pool {input.pool:q} --teacher-name {params.teacher:q}"
        " --teacher-weights {input.teacher:q} --out {params.folder:q} --minutes {params.minutes} --seed {params.seed}"
        " --device {params.device} --threads {threads} --resume 2>&1 | tee {log}"
