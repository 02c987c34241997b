import shutil

import inspection_set
import pytest
from defectflow.core.files import UserError, read_json, write_json
from defectflow.evaluation import evaluate
from defectflow.reporting import leaderboard, summary


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("verdict")
    data = inspection_set.make(root / "set", group_out=True)
    runs = [root / "results/demo" / recipe for recipe in ("template/zero_out/patchcore", "none/none/patchcore")]
    for folder in runs:
        evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(folder)))
    board = root / "results/demo/leaderboard.csv"
    args = ["--metrics", *(str(folder / "metrics.json") for folder in runs), "--splits", str(data.splits)]
    args += ["--predictions", *(str(folder / "predictions.csv") for folder in runs)]
    args += ["--table", str(board), "--page", str(board.with_suffix(".html"))]
    leaderboard.main(leaderboard.build_parser().parse_args(args))
    return board, runs


def printed(capsys, *args):
    summary.main(summary.build_parser().parse_args([str(a) for a in args]))
    return capsys.readouterr().out


def test_the_main_run_of_the_leaderboard_is_told(results, capsys):
    board, runs = results
    text = printed(capsys, "--leaderboard", board)
    assert "Verdicts: demo / template / zero_out / patchcore" in text
    assert "* template / zero_out / patchcore" in text and "  none / none / patchcore" in text
    assert "groups apart" in text
    assert "! Few labelled images (8 good, 6 bad)" in text
    assert str(runs[0] / "predictions.csv") in text
    assert "overlays" not in text.split("Where to look")[1]  # not rendered: not promised


def test_counts_and_the_worst_images(results, capsys):
    _, runs = results
    lines = printed(capsys, runs[0], "--worst", "3").splitlines()
    counts = {line.split()[0]: line.split()[-3:] for line in lines[3:7]}
    good, bad = ([int(n.replace("-", "0")) for n in counts[name]] for name in ("good", "bad"))
    assert sum(good) == 8 and sum(bad) == 6
    start = next(i for i, line in enumerate(lines) if line.startswith("The 3 most anomalous of 16"))
    worst = lines[start + 3 : start + 6]
    assert all("BAD" in line for line in worst) and lines[start + 6] == ""
    heading = next(i for i, line in enumerate(lines) if line.startswith("Wrong verdicts"))
    assert sum("<- " in line for line in lines[heading:]) == min(3, good[1] + bad[0]) > 0


def test_the_review_band_is_told(results, tmp_path, capsys):
    _, runs = results
    assert "To a person" not in printed(capsys, runs[0])
    data = inspection_set.make(tmp_path / "set")
    folder = tmp_path / "d/s/i/p"
    args = ["--review", "max_fpr=0.1", "max_fnr=0.1", "--threshold", "max_fpr", "max_fpr=0.1"]
    evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(folder, *args)))
    review = read_json(folder / "metrics.json")["review"]
    lines = printed(capsys, folder, "--worst", 16).splitlines()
    (start,) = (i for i, line in enumerate(lines) if "To a person: " in line)
    assert "(rule: max_fpr, max_fpr 0.1)" in lines[start - 1]
    assert f"{review['n_reviewed']} of 14 labelled images" in lines[start] and max(map(len, lines[: start + 2])) <= 100
    assert f"{review['false_alarms_left']} false alarms, {review['missed_left']} missed" in lines[start + 1]
    marked = [line for line in lines if " <- " in line and "to a person" in line]
    wrong = ("missed defect · to a person", "false alarm · to a person")
    wrong_and_reviewed = sum(any(words in line for words in wrong) for line in lines) // 2  # in both lists
    assert len(marked) - wrong_and_reviewed == review["n_reviewed"] + review["unlabelled_reviewed"] > 0


def test_what_bears_on_everything_comes_first(results, tmp_path, capsys):
    _, runs = results
    folder = tmp_path / "results/demo/none/none/patchcore"
    shutil.copytree(runs[1], folder)
    metrics = read_json(folder / "metrics.json")
    metrics["background"] = {"warning": "The background of these photographs is being judged."}
    metrics["confidence_intervals"]["auroc"], metrics["image"]["auroc"] = [0.0, 0.3], 0.08
    write_json(folder / "metrics.json", metrics)
    text = printed(capsys, folder)
    top, figures = text.split("Figures, held out")
    assert "! The background of these photographs is being judged." in top and "labels swapped" in top
    assert "below 0.5: are the labels swapped?" in figures and "1 = every bad" not in figures


def test_the_commands_for_new_photographs_have_the_paths_of_the_run(results, capsys):
    _, runs = results
    text = printed(capsys, runs[1]).split("New photographs")[1]
    assert (
        f"snakemake --cores all {runs[1]}/bundle" in text and f"defectflow inspect {runs[1]}/bundle new/*.jpg" in text
    )


def test_no_line_is_wider_than_the_terminal_but_paths(results, capsys):
    board, _ = results
    text = printed(capsys, "--leaderboard", board).split("Where to look")[0]
    assert max(map(len, text.splitlines())) <= summary.WIDTH


def test_a_set_without_labels_prints_too(tmp_path, capsys):
    data = inspection_set.make(tmp_path / "set", good=0, bad=0, unlabelled=3)
    folder = tmp_path / "d/s/i/p"
    evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(folder)))
    text = printed(capsys, folder)
    assert "No labelled image has a held-out score" in text


def test_what_the_first_stage_put_right_is_told_too(results, capsys):
    board, runs = results
    told = {"file": "a.json", "text": "found under another name", "figure": ""}
    write_json(board.with_name("ingest_report.json"), {"warnings": [told, told | {"file": "b", "figure": "masks"}]})
    text = printed(capsys, runs[0])
    board.with_name("ingest_report.json").unlink()
    assert "! a.json: found under another name" in text and "! b:" not in text  # that one is for metrics.json


def test_the_command_that_packs_is_the_one_that_was_given(results, capsys):
    _, runs = results
    assert "\n  defectflow run mine --bundle\n" in printed(capsys, runs[0], "--bundle", "defectflow run mine --bundle")


def test_good_photographs_alone_give_no_figure_of_bad_ones(tmp_path, capsys):
    data = inspection_set.make(tmp_path / "set", good=12, bad=0)
    folder = tmp_path / "d/s/i/p"
    evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(folder)))
    text = printed(capsys, folder)
    assert "false alarms  " in text and not any(name in text for name in ("precision  ", "recall  ", "AUROC  "))


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match="no run named"):
        summary.main(summary.build_parser().parse_args([]))
    with pytest.raises(UserError, match="run snakemake first"):
        summary.main(summary.build_parser().parse_args(["--leaderboard", str(tmp_path / "leaderboard.csv")]))
    with pytest.raises(UserError, match=r"metrics\.json: no such file"):
        summary.main(summary.build_parser().parse_args([str(tmp_path)]))


def test_photographs_without_a_label_are_not_called_labelled(results, tmp_path, capsys):
    folder = tmp_path / "d/s/i/p"
    shutil.copytree(results[1][1], folder)
    metrics = read_json(folder / "metrics.json")
    assumed = {"said": "2 photographs without a label were taken as mostly good.", "threshold_from": "labels"}
    write_json(folder / "metrics.json", metrics | {"n_samples": 12, "assumed": assumed | {"n_labelled": 12}})
    folds = metrics["protocol"]["n_folds"]
    expected = f"12 labelled images, {metrics['protocol']['name']}: 14 images held out in {folds} folds"
    assert expected in printed(capsys, folder)
