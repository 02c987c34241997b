if SETTINGS["regions"].refine:

    rule refine:
        """Outlines of damaged regions by SAM 2.1, where these are better than those of the anomaly map, held out."""
        input:
            regions=multiext("results/{dataset}/{segmenter}/{isolation}/{detector}/map_regions", ".csv", ".json"),
            predictions="results/{dataset}/{segmenter}/{isolation}/{detector}/predictions.csv",
            maps=per_shard("maps/{shard}.safetensors"),
            manifest="results/{dataset}/manifest.csv",
            checkpoint=ancient(SETTINGS["regions"].sam_checkpoint) if SETTINGS["regions"].sam_checkpoint else [],
        output:
            table="results/{dataset}/{segmenter}/{isolation}/{detector}/regions.csv",
            coco="results/{dataset}/{segmenter}/{isolation}/{detector}/regions.json",
            report="results/{dataset}/{segmenter}/{isolation}/{detector}/refinement.json",
        log:
            "<logs>/{dataset}/{segmenter}/{isolation}/{detector}/refine.log",
        benchmark:
            "<benchmarks>/{dataset}/{segmenter}/{isolation}/{detector}/refine.tsv"
        conda:
            "../../envs/defectflow.yaml"
        threads: 8
        resources:
            gpu=GPU,
            mem_mb=memory(6000),
            runtime=240,
        params:
            settings=json.dumps(SETTINGS["regions"].read_by("refine")),
            checkpoint=lambda w, input: option("--checkpoint", input.get("checkpoint")),
            weights_hash=weights_hash(SETTINGS["regions"].sam_checkpoint, "sam2.1-nano.safetensors"),
            depth=depth_flag,
            seed=config["seed"],
            device=config["device"],
            code=code_hash("refinement.refine"),
        message:
            "Outline damaged regions of {wildcards.segmenter}/{wildcards.isolation}/{wildcards.detector} with SAM 2.1"
        shell:
            "python -m defectflow.refinement.refine --regions {input.regions} --predictions {input.predictions}"
            " --maps {input.maps} --manifest {input.manifest} --settings {params.settings:q} {params.checkpoint}"
            " {params.depth} --seed {params.seed} --device {params.device} --threads {threads}"
            " --table {output.table} --coco {output.coco} --report {output.report} 2>&1 | tee {log}"
