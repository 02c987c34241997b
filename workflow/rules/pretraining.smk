rule pretrain:
    """Our own weights, made again; no part of `all`: the package ships the results."""
    input:
        "results/pretrain/patch-nano/patch-nano.md",
        "results/pretrain/sam2.1-nano/sam2.1-nano.md",
        "results/pretrain/part-nano/part-nano.md",


# All trainings make their images as they go, from seed and step, so that none is made twice; all hold a tenth of the
# pool out, measure the exported file on that and write its card. All keep a checkpoint beside the outputs, which
# Snakemake removes when a job fails; the checkpoint stays, so --resume works.
rule pretrain_backbone:
    """Distil the backbone patch-nano from a teacher."""
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
        code=lambda w: code_hash("pretraining.pretrain_backbone"),
    message:
        "Distil patch-nano from {params.teacher} for {params.minutes} minutes"
    shell:
        "python -m defectflow.pretraining.pretrain_backbone --pool {input.pool:q} --teacher-name {params.teacher:q}"
        " --teacher-weights {input.teacher:q} --out {params.folder:q} --minutes {params.minutes} --seed {params.seed}"
        " --device {params.device} --threads {threads} --resume 2>&1 | tee {log}"


rule pretrain_sam:
    """Pre-train sam2.1-nano on rendered scenes, and on real photographs with masks where there are such."""
    input:
        pool=ancient(config["pretrain"]["pool"]),
        photographs=ancient(config["pretrain"]["photographs"]) if config["pretrain"]["photographs"] else [],
    output:
        weights="results/pretrain/sam2.1-nano/sam2.1-nano.safetensors",
        figures="results/pretrain/sam2.1-nano/sam2.1-nano.json",
        card="results/pretrain/sam2.1-nano/sam2.1-nano.md",
        curve="results/pretrain/sam2.1-nano/curve.csv",
        scenes="results/pretrain/sam2.1-nano/scenes.png",
    log:
        "<logs>/pretrain/sam2.1-nano.log",
    benchmark:
        "<benchmarks>/pretrain/sam2.1-nano.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        gpu=GPU,
        mem_mb=8000,
        runtime=int(config["pretrain"]["minutes"] * 1.5) + 10,
    params:
        folder=subpath(output.weights, parent=True),
        photographs=option("--photographs", config["pretrain"]["photographs"]),
        minutes=config["pretrain"]["minutes"],
        seed=config["seed"],
        device=config["device"],
        code=lambda w: code_hash("pretraining.pretrain_sam"),
    message:
        "Pre-train sam2.1-nano for {params.minutes} minutes"
    shell:
        "python -m defectflow.pretraining.pretrain_sam --pool {input.pool:q} {params.photographs} --out {params.folder:q}"
        " --minutes {params.minutes}"
        " --seed {params.seed} --device {params.device} --threads {threads} --resume 2>&1 | tee {log}"


rule pretrain_part:
    """Train part-nano on rendered parts and surfaces, and on real photographs with masks where there are such."""
    input:
        pool=ancient(config["pretrain"]["pool"]),
        photographs=ancient(config["pretrain"]["photographs"]) if config["pretrain"]["photographs"] else [],
        teacher=ancient(config["pretrain"]["figure_teacher"]) if config["pretrain"]["figure_teacher"] else [],
    output:
        weights="results/pretrain/part-nano/part-nano.safetensors",
        figures="results/pretrain/part-nano/part-nano.json",
        card="results/pretrain/part-nano/part-nano.md",
        curve="results/pretrain/part-nano/curve.csv",
        scenes="results/pretrain/part-nano/scenes.png",
    log:
        "<logs>/pretrain/part-nano.log",
    benchmark:
        "<benchmarks>/pretrain/part-nano.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 4
    resources:
        gpu=GPU,
        mem_mb=8000,
        runtime=int(config["pretrain"]["minutes"] * 1.5) + 20,
    params:
        folder=subpath(output.weights, parent=True),
        photographs=option("--photographs", config["pretrain"]["photographs"]),
        teacher=option("--teacher", config["pretrain"]["figure_teacher"]),
        minutes=config["pretrain"]["minutes"],
        seed=config["seed"],
        device=config["device"],
        code=lambda w: code_hash("pretraining.pretrain_part"),
    message:
        "Train part-nano for {params.minutes} minutes"
    shell:
        "python -m defectflow.pretraining.pretrain_part --pool {input.pool:q} {params.photographs} {params.teacher}"
        " --out {params.folder:q} --minutes {params.minutes} --seed {params.seed}"
        " --device {params.device} --threads {threads} --resume 2>&1 | tee {log}"
