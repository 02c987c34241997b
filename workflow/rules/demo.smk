rule render_demo:
    """Photographs of a made-up part, rendered, with outlines and labels: the demo's data set."""
    output:
        folder=directory("results/{dataset}/source"),
        list="results/{dataset}/source.sha256",
    log:
        "<logs>/{dataset}/render_demo.log",
    benchmark:
        "<benchmarks>/{dataset}/render_demo.tsv"
    conda:
        "../../envs/defectflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        recipe=lambda w: config["datasets"][w.dataset]["rendered"],
        seed=config["seed"],
        code=code_hash("demo.render_demo"),
    message:
        "Render the photographs of data set {wildcards.dataset}"
    shell:
        "python -m defectflow.demo.render_demo --out {output.folder} --views {params.recipe[views]} --defects {params.recipe[defects]}"
        " --kinds {params.recipe[kinds]} --size {params.recipe[size]} --seed {params.seed} 2>&1 | tee {log}\n"
        "(cd {output.folder} && find . -type f | LC_ALL=C sort | xargs sha256sum) > {output.list}"
