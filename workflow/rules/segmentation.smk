rule fetch_checkpoint:
    """Download the checkpoint that a segmenter starts from."""
    output:
        "results/checkpoints/{segmenter}.pt",
    log:
        "<logs>/checkpoints/{segmenter}.log",
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=60,
    params:
        entry=lambda w: {"checkpoint": segmenter_of(w).checkpoint, "sha256": segmenter_of(w).sha256},
        size=lambda w: option("--bytes", segmenter_of(w).bytes),
        code=code_hash("segmentation.fetch_checkpoint"),
    message:
        "Download the checkpoint of {wildcards.segmenter}"
    shell:
        "python -m defectflow.segmentation.fetch_checkpoint --url {params.entry[checkpoint]:q} --sha256 {params.entry[sha256]} {params.size}"
        " --out {output} 2>&1 | tee {log}"


rule segment:
    """Fine-tune SAM 2.1 on the annotated photographs."""
    input:
        splits="results/{dataset}/annotated.csv",
        # A folder has no checksum; its table has one, and changes with it.
        pairs=ancient("results/{dataset}/sam_pairs"),
        table="results/{dataset}/pairs.csv",
        prior="results/{dataset}/prior.safetensors",
        start=checkpoint_file,
    output:
        model="results/{dataset}/{segmenter}/model.pt",
        report=report(
            "results/{dataset}/{segmenter}/train.json",
            caption="../report/train.rst",
            category="2 Masks",
            labels={"data set": "{dataset}", "what": "fine-tuning of {segmenter}"},
        ),
    log:
        "<logs>/{dataset}/{segmenter}/segment.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/segment.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 8
    resources:
        gpu=GPU,
        mem_mb=memory(6000),
        runtime=480,
    params:
        settings=settings_for("segmenters", "segment"),
        start=lambda w, input: option("--checkpoint", input.get("start")),
        start_hash=start_hash,
        depth=depth_flag,
        seed=config["seed"],
        device=config["device"],
        code=code_hash("segmentation.segment"),
    message:
        "Fine-tune {wildcards.segmenter} on {wildcards.dataset}"
    shell:
        "python -m defectflow.segmentation.segment --pairs {input.pairs} --table {input.table} --splits {input.splits}"
        " --prior {input.prior} --settings {params.settings:q} {params.start} {params.depth}"
        " --seed {params.seed} --device {params.device} --threads {threads} --resume"
        " --out {output.model} --report {output.report} 2>&1 | tee {log}"


rule masks:
    """Find the part in the photographs of one shard."""
    input:
        unpack(segmenter_files),
        unpack(network_files),
        images="results/{dataset}/shards/{shard}.csv",
    output:
        folder=directory("results/{dataset}/{segmenter}/masks/{shard}"),
        table="results/{dataset}/{segmenter}/masks/{shard}.csv",
    log:
        "<logs>/{dataset}/{segmenter}/masks-{shard}.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/masks-{shard}.tsv"
    conda:
        "../../envs/defectflow.yaml"
    resources:
        gpu=lambda w: GPU if asks_sam(w) else 0,
        mem_mb=lambda w, attempt: (4000 if asks_sam(w) or segmenter_of(w).prompts else 1000) * attempt,
        runtime=120,
    params:
        depth=depth_flag,
        settings=settings_for("segmenters", "masks"),
        model=lambda w, input: " ".join(
            option(flag, value)
            for flag, value in (
                ("--model", input.get("model")),
                ("--train-json", input.get("train_json")),
                ("--prior", input.get("prior")),
                *((f"--{key}", input.get(key)) for key in ("checkpoint", "encoder", "decoder")),
            )
        ),
        network_hash=network_hash,
        device=lambda w: option("--device", config["device"] if asks_sam(w) else None),
        code=lambda w: (
            code_hash("segmentation.masks")
            if asks_sam(w)
            else code_hash("segmentation.masks", without="segmentation.sam_model")
        ),
    message:
        "Find the part in shard {wildcards.shard} of {wildcards.dataset} with {wildcards.segmenter}"
    shell:
        "python -m defectflow.segmentation.masks --manifest {input.images}"
        " --settings {params.settings:q} {params.model} {params.device} {params.depth}"
        " --out-dir {output.folder} --table {output.table} 2>&1 | tee {log}"
