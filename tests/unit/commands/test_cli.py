import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from types import SimpleNamespace

import bundle_set
import cv2
import pytest
from defectflow.commands import cli
from defectflow.core.parallel import can_fork
from defectflow.drawing import overlay_images
from defectflow.images.read_write import write_png
from defectflow.inspection import photo_sources
from defectflow.inspection.latency import quantile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NAMES = ["plain.png", "a space.png", 'it\'s "quoted".png', "line\nbreak.png", "Prüfstück_検査.png"]


def run(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return caught.value.code, out, err


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for number, name in enumerate(NAMES):
        write_png(folder / "day 1" / name, bundle_set.photograph(80 + number, bad=number == 1))
    return folder


def test_every_name_gets_one_line_one_row_and_its_pictures(bundle_folder, photos, tmp_path, capsys):
    out = tmp_path / "out"
    code, lines, err = run(
        capsys, "inspect", bundle_folder, photos, "--csv", out / "t.csv", "--jsonl", out / "t.jsonl", "--out", out,
        "--triptychs",
    )  # fmt: skip
    assert code == 3 and "5 photographs judged, 1 flagged;" in err
    assert lines.count("\n") == 5 and lines.count("BAD") == 1 and "line\\nbreak.png" in lines
    rows = list(csv.DictReader((out / "t.csv").open(encoding="utf-8", newline="")))
    assert {Path(row["path"]).name for row in rows} == set(NAMES)
    bad = [row for row in rows if row["verdict"] == "bad"]
    assert [Path(row["path"]).name for row in bad] == ["a space.png"] and bad[0]["regions"]
    parsed = [json.loads(line) for line in (out / "t.jsonl").read_text().splitlines()]
    assert [entry["path"] for entry in parsed] == [row["path"] for row in rows]
    assert next(entry for entry in parsed if entry["verdict"] == "bad")["regions"][0]["box"]
    told = 96 + overlay_images.strip_height(128)  # with verdict and name below
    for kind, shape in (("heatmaps", (96, 128)), ("overlays", (told, 128)), ("triptychs", (told, 3 * 128 + 2 * 4))):
        pictures = list((out / kind).iterdir())
        assert len(pictures) == 5
        assert {cv2.imread(str(path)).shape[:2] for path in pictures} == {shape}


def test_a_packed_bundle_inspects_and_is_not_exported_into(bundle_folder, photos, tmp_path, capsys):
    packed = tmp_path / "b.zip"
    assert run(capsys, "pack", bundle_folder, packed) == (0, f"{packed}\n", "")
    named = shutil.copytree(bundle_folder, tmp_path / "part.v1")
    assert run(capsys, "pack", named)[1] == f"{tmp_path / 'part.v1.zip'}\n"
    assert (tmp_path / "part.v1.zip").read_bytes() == packed.read_bytes()
    code, lines, _ = run(capsys, "inspect", packed, photos)
    assert code == 3 and lines == run(capsys, "inspect", bundle_folder, photos)[1]
    code, _, err = run(capsys, "export", packed, "--format", "onnx", "--images", photos)
    assert code == 2 and err == f"error: {packed}: cannot export into a .zip (unpack it, export, pack it again)\n"


def test_a_bundle_older_than_its_run_is_told(bundle_folder, photos, tmp_path, capsys):
    named = shutil.copytree(bundle_folder, tmp_path / "run/bundle")
    good = photos / "day 1/plain.png"
    assert "note" not in run(capsys, "inspect", named, good)[2]
    (named.parent / "metrics.json").write_text("{}")
    assert "older than the run" not in run(capsys, "inspect", bundle_folder, good)[2]
    assert f"note: {named} is older than the run next to it" in run(capsys, "inspect", named, good)[2]
    os.utime(named / "bundle.json")  # as `learn` and `export` do
    assert "older than the run" in run(capsys, "inspect", named, good)[2]
    for path in named.iterdir():
        os.utime(path)
    assert "note" not in run(capsys, "inspect", named, good)[2]


def test_exit_codes_and_what_cannot_be_read(bundle_folder, photos, tmp_path, capsys):
    good = photos / "day 1/plain.png"
    assert run(capsys, "inspect", bundle_folder, good)[0] == 0
    (photos / "torn.png").write_bytes(good.read_bytes()[:500])
    table = tmp_path / "t.csv"
    code, lines, err = run(capsys, "inspect", bundle_folder, photos, tmp_path / "absent.png", "--csv", table)
    assert code == 2 and "5 photographs judged, 1 flagged, 2 not judged;" in err and "Traceback" not in err
    errors = [line for line in lines.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 2 and "torn.png" in errors[0] and "absent.png: no such file" in errors[1]
    assert sum(row["verdict"] == "error" for row in csv.DictReader(table.open(newline=""))) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["BUNDLE"], "give photographs, folders or globs"),
        (["BUNDLE", "FOLDER/*.bmp"], "no image there"),
        (["BUNDLE", "FOLDER", "--triptychs"], "--triptychs: needs --out"),
        (["BUNDLE", "FOLDER", "--threads", "0"], "must be 1 or more"),
        (["BUNDLE", "FOLDER", "--batch", "0"], "must be 1 or more"),
        (
            ["BUNDLE", "FOLDER", "--batch", "4", "--runtime", "onnx"],
            "takes one photograph at a time",
        ),
        (
            ["BUNDLE", "FOLDER", "--device", "cuda", "--runtime", "onnx"],
            "computes on the processor",
        ),
        (["BUNDLE", "FOLDER", "--out", "BUNDLE/bundle.json"], "File exists (make room, or write elsewhere)"),
        (["FOLDER", "FOLDER"], "not a bundle"),
        (["BUNDLE/..", "FOLDER"], "give "),
        (["BUNDLEx", "FOLDER"], "no such bundle; did you mean BUNDLE?"),
        (["BUNDLE", "FOLDERx/*.png"], "does not exist; did you mean FOLDER?"),
        (["BUNDLE", "--watch", "absent"], "no such folder to watch"),
    ],
)
def test_a_wrong_command_is_one_line(bundle_folder, photos, capsys, words, message):
    put = [w.replace("BUNDLE", str(bundle_folder)).replace("FOLDER", str(photos)) for w in (*words, message)]
    *words, message = put
    code, _, err = run(capsys, "inspect", *words)
    assert code == 2 and err.startswith("error: ") and message in err and err.count("\n") == 1


def test_pictures_that_cannot_be_written_are_no_fault_of_a_photograph(bundle_folder, photos, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/heatmaps").touch()
    code, lines, err = run(capsys, "inspect", bundle_folder, photos, "--out", tmp_path / "out")
    assert code == 2 and lines == ""
    assert err == f"error: {tmp_path / 'out/heatmaps'}: File exists (make room, or write elsewhere)\n"


def test_globs_reach_below_and_a_name_with_brackets_is_no_pattern(bundle_folder, photos, capsys):
    write_png(photos / "part[1].png", bundle_set.photograph(90))
    assert run(capsys, "inspect", bundle_folder, photos / "**/*a*.png")[1].count("\n") == 4  # not "it's ..."
    assert run(capsys, "inspect", bundle_folder, photos / "part[1].png")[1].count("\n") == 1


def test_streams_and_threads_change_nothing(bundle_folder, photos, tmp_path, capsys):
    for streams in (1, 3):
        run(capsys, "inspect", bundle_folder, photos, "--streams", streams, "--csv", tmp_path / f"{streams}.csv")
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "3.csv").read_bytes()


@pytest.mark.skipif(not can_fork(), reason="no forks here")
@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_forks_write_what_one_process_writes(bundle_folder, photos, tmp_path, runtime):
    (photos / "torn.png").write_bytes((photos / "day 1/plain.png").read_bytes()[:500])
    code = (
        "import sys; from defectflow.commands import cli; from defectflow.core import parallel\n"
        "forks = parallel.in_forks\n"
        "parallel.in_forks = lambda run, items, count: print(count, file=sys.stderr) or forks(run, items, count)\n"
        "cli.main(sys.argv[1:])"
    )  # in a process of its own: here torch is imported
    said = {}
    for threads in (1, 3):
        out = tmp_path / str(threads)
        options = {"threads": threads, "runtime": runtime, "csv": out / "t.csv", "out": out, "log": out / "l.db"}
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        command = [sys.executable, "-c", code, "inspect", bundle_folder, photos, *words]
        done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        said[threads] = done.stdout, done.stderr
    assert said[1][0] == said[3][0] and said[3][1] == f"3\n{said[1][1]}"
    files = [sorted(path.relative_to(tmp_path / n) for path in (tmp_path / n).rglob("*.*")) for n in ("1", "3")]
    assert files[0] == files[1] and len(files[0]) == 12
    for name in files[0]:
        if name.suffix != ".db":  # which has the time of each inspection
            assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes(), name


def test_a_batch_says_what_single_photographs_say(bundle_folder, photos, tmp_path, capsys):
    (photos / "torn.png").write_bytes((photos / "day 1/plain.png").read_bytes()[:500])
    tables = []
    for batch in ("1", "4"):
        out = tmp_path / batch
        words = ["--runtime", "torch", "--batch", batch, "--csv", out / "t.csv", "--out", out]
        code, _, err = run(capsys, "inspect", bundle_folder, photos, *words)
        assert code == 2 and "5 photographs judged, 1 flagged, 1 not judged; torch" in err
        tables.append(list(csv.DictReader((out / "t.csv").open(encoding="utf-8", newline=""))))
        assert len(list((out / "overlays").iterdir())) == 5
    for one, other in zip(*tables, strict=True):
        assert all(one[key] == other[key] for key in ("path", "verdict", "reason", "regions"))
        assert one["verdict"] == "error" or float(one["raw_score"]) == pytest.approx(
            float(other["raw_score"]), rel=1e-4
        )


def test_a_watched_folder_is_inspected_as_photographs_arrive(bundle_folder, tmp_path, capsys):
    folder = tmp_path / "incoming"
    write_png(folder / "first.png", bundle_set.photograph(91))

    def arrive():
        time.sleep(1)
        write_png(folder / "second.png", bundle_set.photograph(92, bad=True))

    thread = threading.Thread(target=arrive)
    thread.start()
    code, lines, _ = run(capsys, "inspect", bundle_folder, "--watch", folder, "--idle", "8")
    thread.join()
    first, second = lines.splitlines()
    assert code == 3 and "first.png" in first and "second.png" in second and second.startswith("BAD")


def test_the_time_that_judging_takes_is_not_idle(tmp_path, monkeypatch):
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.append(now.pop() + seconds))
    monkeypatch.setattr(photo_sources, "time", clock)
    (tmp_path / "first.png").touch()
    judged = []
    for path in photo_sources.watch(tmp_path, idle=1):
        judged.append(path.name)
        now[0] += 1.5
        if len(judged) == 1:
            (tmp_path / "second.png").touch()
    assert judged == ["first.png", "second.png"]


def test_what_has_changed_since_is_judged_again(tmp_path):
    (tmp_path / "a.png").write_bytes(b"half")
    judged = []
    for path in photo_sources.watch(tmp_path, interval=0.05, idle=0.5):
        judged.append(path.read_bytes())
        if len(judged) == 1:
            path.write_bytes(b"half and the rest")
    assert judged == [b"half", b"half and the rest"]


def test_quantiles_are_those_of_the_nearest_rank():
    assert quantile(range(1, 21), 0.95) == 19
    assert quantile([4, 1, 3, 2], 0.5) == 2
    assert quantile([7], 0.5) == quantile([7], 0.95) == 7


BLOCK = """
import importlib.abc, sys
early = set(sys.modules)  # what setuptools loads whenever Python starts
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
from defectflow.commands import cli
from defectflow.core.parallel import can_fork
try:
    cli.main(sys.argv[1:])
finally:
    print("loaded:", sorted({blocked} & sys.modules.keys() - early), file=sys.stderr)
"""


def not_of(extra):
    """Names of the modules here that ``pip install defectflow[extra]`` would not bring, by pyproject.toml."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    wanted, brought = [*project["dependencies"], *project["optional-dependencies"][extra]], set()
    while wanted:
        needed = Requirement(wanted.pop())
        name = canonicalize_name(needed.name)
        if name not in brought and (needed.marker is None or needed.marker.evaluate({"extra": ""})):
            brought.add(name)
            wanted += requires(name) or []
    modules = packages_distributions()
    return {
        module for module, owners in modules.items()
        if module != "defectflow" and not brought & {canonicalize_name(owner) for owner in owners}
    }  # fmt: skip


def test_a_copy_elsewhere_with_the_inspect_extra_alone_says_the_same(bundle_folder, photos, tmp_path, capsys):
    run(capsys, "inspect", bundle_folder, photos, "--csv", tmp_path / "here.csv", "--runtime", "openvino")
    blocked = not_of("inspect")
    assert blocked > {"torch", "anomalib", "snakemake", "sam2", "pandas", "pycocotools", "timm", "sklearn"}
    shutil.copytree(bundle_folder, tmp_path / "elsewhere/copy")
    words = ["inspect", "copy", photos, "--csv", tmp_path / "there.csv", "--out", tmp_path / "out"]
    result = subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=blocked), *map(str, words)],
        capture_output=True, text=True, cwd=tmp_path / "elsewhere",
    )  # fmt: skip
    assert result.returncode == 3, result.stderr
    assert "loaded: []" in result.stderr
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "there.csv").read_bytes()


def test_memory_does_not_grow_with_the_number_of_photographs(bundle_folder, tmp_path):
    folder = tmp_path / "many"
    write_png(folder / "0.png", bundle_set.photograph(93, size=(400, 600)))
    for number in range(1, 400):
        os.link(folder / "0.png", folder / f"{number}.png")
    code = (
        f"import sys; from defectflow.commands.cli import build_parser, judge_all; {bundle_set.PEAK}"
        "from defectflow.inspection.inspector import Inspector;"
        "from defectflow.inspection.photo_sources import photographs;"
        "args = build_parser().parse_args(['inspect', sys.argv[1], sys.argv[2], '--streams', '2']);"
        "results = judge_all(Inspector.load(sys.argv[1], threads=2), photographs(args.paths), None, args);"
        "early = [(next(results), peak())[1] for _ in range(100)][-1];"
        "count = sum(1 for _ in results);"
        "print(count, early, peak())"
    )
    command = [sys.executable, "-c", code, bundle_folder, folder]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    count, early, late = map(int, result.stdout.split())
    assert count == 300 and late - early < 30_000, result  # kilobytes; one photograph as floats has 3 MB


def test_an_interrupt_is_the_end_of_a_watch_and_no_error(bundle_folder, tmp_path):
    write_png(tmp_path / "incoming/first.png", bundle_set.photograph(94))
    words = [
        sys.executable,
        "-m",
        "defectflow.commands.cli",
        "inspect",
        bundle_folder,
        "--watch",
        tmp_path / "incoming",
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "first.png" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)  # an interrupt is ignored where tests run in the background
    status, told = process.wait(60), process.stderr.read()
    assert status in (0, 3) and told.startswith("1 photograph judged, ") and told.count("\n") == 1


def test_photographs_may_be_named_behind_options(bundle_folder, photos, tmp_path, capsys):
    code, out, _ = run(capsys, "inspect", bundle_folder, "--csv", tmp_path / "o.csv", photos)
    assert code == 3 and out == run(capsys, "inspect", bundle_folder, photos)[1]
    code, _, err = run(capsys, "inspect", bundle_folder, photos, "--cvs", "o.csv")
    assert code == 2 and "unrecognized arguments: --cvs" in err


def test_an_error_before_the_first_photograph_loses_no_earlier_table(bundle_folder, photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "o.csv").write_text("of yesterday\n")
    files = ["--csv", tmp_path / "o.csv", "--jsonl", tmp_path / "new.jsonl"]
    assert run(capsys, "inspect", bundle_folder, tmp_path / "empty", *files)[0] == 2
    assert (tmp_path / "o.csv").read_text() == "of yesterday\n" and not (tmp_path / "new.jsonl").exists()
    code, _, err = run(capsys, "inspect", bundle_folder, photos, *files[:3], tmp_path / "o.csv")
    assert code == 2 and "the same file" in err and (tmp_path / "o.csv").read_text() == "of yesterday\n"


def test_a_table_that_cannot_be_written_is_told_in_one_line(bundle_folder, photos, tmp_path, capsys, monkeypatch):
    def refuse(*_args):
        raise PermissionError(13, "Permission denied", str(tmp_path / "o.csv"))

    monkeypatch.setattr("defectflow.inspection.outputs.open_report", refuse)
    code, _, err = run(capsys, "inspect", bundle_folder, photos, "--csv", tmp_path / "o.csv")
    assert code == 2 and err == f"error: {tmp_path}/o.csv: Permission denied (make room, or write elsewhere)\n"


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_the_help_tells_the_commands_in_the_order_of_use(capsys, words):
    with pytest.raises(SystemExit) as caught:
        cli.main(list(words))
    text = "".join(capsys.readouterr())
    assert caught.value.code == (0 if words else 2)
    for start in ("\n    ", "\n  defectflow "):
        places = [
            text.index(f"{start}{name} ") for name in ("run", "inspect", "learn", "drift", "pack", "export", "bench")
        ]
        assert places == sorted(places)
