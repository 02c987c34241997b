rule candidates:
    """Look at some photographs of one shard for what may be the part."""
    input:
        images="results/{dataset}/shards/{shard}.csv",
        networks=lambda w: [ancient(path) for path in candidate_networks(w)],
    output:
        "results/{dataset}/{segmenter}/candidates/{shard}.safetensors",
    log:
        "<logs>/{dataset}/{segmenter}/candidates-{shard}.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/candidates-{shard}.tsv"
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(3000),
        runtime=60,
    params:
        most=max(1, -(-FIND_AMONG // len(SHARDS))),
        depth=depth_flag,
        weights_hash=lambda w: [weights_hash(None, f"{name}.safetensors") for name in ("patch-nano", "part-nano")],
        networks=lambda w, input: option("--onnx", list(input.networks)),
        networks_hash=lambda w: [weights_hash(path, "") for path in candidate_networks(w)],
        seed=config["seed"],
        code=code_hash("finding.candidates"),
    message:
        "Look for the part in shard {wildcards.shard} of {wildcards.dataset}"
    shell:
        "python -m defectflow.finding.candidates --manifest {input.images} --most {params.most} {params.depth} {params.networks}"
        " --seed {params.seed} --threads {threads} --out {output} 2>&1 | tee {log}"


rule find_part:
    """Find the part in the candidates of all shards together, and judge what was found."""
    input:
        [f"results/{{dataset}}/{{segmenter}}/candidates/{shard}.safetensors" for shard in SHARDS],
    output:
        folder=directory("results/{dataset}/{segmenter}/found"),
        table="results/{dataset}/{segmenter}/found.csv",
        finder="results/{dataset}/{segmenter}/finder.safetensors",
        report="results/{dataset}/{segmenter}/finding.json",
    log:
        "<logs>/{dataset}/{segmenter}/find_part.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/find_part.tsv"
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        seed=config["seed"],
        code=code_hash("finding.find_part"),
    message:
        "Find the part in the photographs of {wildcards.dataset} together"
    shell:
        "python -m defectflow.finding.find_part --candidates {input} --seed {params.seed} --threads {threads}"
        " --out-dir {output.folder} --table {output.table} --finder {output.finder} --report {output.report} 2>&1 | tee {log}"


rule learn_found:
    """Learn the part from the masks that were found, as from outlines."""
    input:
        folder=ancient("results/{dataset}/{segmenter}/found"),
        table="results/{dataset}/{segmenter}/found.csv",
        finder="results/{dataset}/{segmenter}/finder.safetensors",
        report="results/{dataset}/{segmenter}/finding.json",
    output:
        prior="results/{dataset}/{segmenter}/prior.safetensors",
        report=report(
            "results/{dataset}/{segmenter}/found.json",
            caption="../report/found.rst",
            category="2 Masks",
            labels={"data set": "{dataset}", "what": "part found without an outline"},
        ),
    log:
        "<logs>/{dataset}/{segmenter}/learn_found.log",
    benchmark:
        "<benchmarks>/{dataset}/{segmenter}/learn_found.tsv"
    conda:
        "../../envs/defectflow.yaml"
    threads: 2
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        depth=depth_flag,
        weights_hash=lambda w: weights_hash(None, "patch-nano.safetensors"),
        seed=config["seed"],
        code=code_hash("parts.prior"),
    message:
        "Learn the part of {wildcards.dataset} from what was found"
    shell:
        "python -m defectflow.parts.prior --table {input.table} --found-report {input.report} --finder {input.finder} {params.depth}"
        " --seed {params.seed} --out {output.prior} --report {output.report} 2>&1 | tee {log}"


rule part_sheet:
    """A sheet of what the masks show, to look at before anything else is computed."""
    input:
        images=collect("results/{{dataset}}/shards/{shard}.csv", shard=SHARDS),
        masks=mask_tables,
    output:
        "results/{dataset}/{segmenter}/parts.png",
    log:
        "<logs>/{dataset}/{segmenter}/part_sheet.log",
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        depth=depth_flag,
        code=code_hash("segmentation.part_sheet"),
    message:
        "Draw what {wildcards.segmenter} took to be the part of {wildcards.dataset}"
    shell:
        "python -m defectflow.segmentation.part_sheet --images {input.images} --masks {input.masks} {params.depth}"
        " --out {output} 2>&1 | tee {log}"


rule parts:
    """Survey to masks, and a sheet of them for each data set that the config asks for."""
    input:
        [f"results/{run.dataset}/{run.segmenter}/parts.png" for run in MAIN_RUNS if segmenter_of(run).makes_masks],
