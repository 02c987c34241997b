"""A workflow in which everything has been made already, by stages that only make the files they are asked for."""

import json
import shutil
from pathlib import Path

from conftest import Workflow, make_coco_set

# A stage that makes whatever path below results/ it is given and does not find: a folder where the name has no suffix.
STUB = """
python() {
    for path in "$@"; do
        case $path in
            results/pretrain/*)
                for name in patch-nano sam2.1-nano part-nano; do
                    (cd "$path" && touch $name.md $name.json $name.safetensors curve.csv scenes.png)
                done ;;
            results/*) [ -e "$path" ] || case ${path##*/} in *.*) touch "$path" ;; *) mkdir -p "$path" ;; esac ;;
        esac
    done
}
"""


class Made(Workflow):
    """A copy of the workflow where everything has been made, by stubs, for one configuration and its targets."""

    def __init__(self, folder: Path, config: dict, *targets: str):
        super().__init__(folder)
        self.config, self.targets = config, targets
        make_coco_set(folder / "data/mine")
        # An image that the COCO file lists counts as annotated, also without an outline: keep out those that are not.
        annotations = folder / "data/mine/annotations.json"
        coco = json.loads(annotations.read_text())
        outlined = {annotation["image_id"] for annotation in coco["annotations"]}
        coco["images"] = [image for image in coco["images"] if image["id"] in outlined]
        annotations.write_text(json.dumps(coco))
        (folder / "data/start.pt").write_text("start weights")
        # Looked into before the first job.
        shutil.copy(self.packaged("patch-nano.safetensors"), folder / "data/net.safetensors")
        for name in ("other.pt", "other.safetensors"):
            (folder / "data" / name).write_text("other weights")
        (folder / "data/feedback.csv").write_text("filename,said\nmine/images/part_000.png,good\n")
        for name in ("moved", "twin", "pool"):
            shutil.copytree(folder / "data/mine", folder / "data" / name)
        (folder / "stub.sh").write_text(STUB)
        with open(folder / "Snakefile", "a") as snakefile:
            snakefile.write("\nshell.prefix('source stub.sh; ')\n")
        result = self.snakemake("--cores", "2", *targets, config=config)
        assert result.returncode == 0, result.stdout + result.stderr

    def stale(self, config: dict | None = None) -> dict[str, int]:
        """Rules that would re-run, with the number of their jobs."""
        return self.jobs(*self.targets, config=self.config if config is None else config)
