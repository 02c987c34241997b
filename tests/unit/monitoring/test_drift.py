import json
import re
import shutil
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace

import bundle_set
import cv2
import numpy as np
import pytest
import taught_set
from defectflow.commands import cli
from defectflow.core.files import UserError
from defectflow.images.read_write import write_png
from defectflow.inspection.bundle_files import read_bundle, write_manifest
from defectflow.inspection.held_out import FILE, read_held_out
from defectflow.inspection.measures import Measures, measure
from defectflow.monitoring.drift import compare, parse_time, sentences
from defectflow.monitoring.inspection_log import SCHEMA, TABLE, Logged, identity, open_log, read_log
from safetensors.numpy import load_file, save_file


@pytest.fixture(scope="module")
def bundle(bundle_folder, tmp_path_factory):
    return taught_set.make(bundle_folder, tmp_path_factory.mktemp("erring") / "bundle")


CHANGES = {
    "darker by 20 %": (lambda photo: (photo * 0.8).astype(np.uint8), r"photographs are darker by (19|20|21)%"),
    "blurred": (lambda photo: cv2.GaussianBlur(photo, (0, 0), 1.2), r"photographs are blurred by \d+%"),
}


def logged(bundle, photos, begin=1_700_000_000.0):
    """A log of photographs taken a minute apart; scores as in the run."""
    random = np.random.default_rng(1)
    known = read_held_out(read_bundle(bundle))
    scores = random.choice(known.score[known.label == 0], len(photos))
    return Logged(
        begin + 60.0 * np.arange(len(photos)),
        np.array([identity(read_bundle(bundle).settings)] * len(photos)),
        np.zeros(len(photos), bool),
        scores,
        np.array([measure(photo)._replace(x=np.nan, y=np.nan) for photo in photos]),
    )


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed_within_fifty_photographs_and_said_in_words(bundle, name):
    change, words = CHANGES[name]
    photos = [bundle_set.photograph(seed) for seed in range(500, 560)]
    photos += [change(bundle_set.photograph(seed)) for seed in range(560, 600)]
    log = logged(bundle, photos)
    before = Logged(*(column[:60] for column in log))
    assert sentences(compare(read_bundle(bundle), before), before) == []
    (told,) = [text for text in sentences(compare(read_bundle(bundle), log), log) if re.search(words, text)]
    since = time.strftime("%A %H:%M", time.localtime(log.time[60]))
    hour = int(since.split()[1][:2])
    assert re.match(rf"since \w+ ({hour:02d}|{(hour - 1) % 24:02d}|{(hour + 1) % 24:02d}):", told)
    assert "or run again with photographs as they are now" in told


def test_inspections_are_kept_in_a_log_that_others_may_read(bundle, tmp_path, capsys):
    for seed in range(3):
        write_png(tmp_path / f"photos/{seed}.png", bundle_set.photograph(600 + seed, bad=seed == 2))
    words = ["inspect", str(bundle), str(tmp_path / "photos"), "--log", str(tmp_path / "log.db")]
    for _ in range(2):
        with pytest.raises(SystemExit):
            cli.main(words)
    log = read_log(tmp_path / "log.db")
    assert len(log.time) == 6 and log.bad.sum() == 2 and abs(log.time[-1] - time.time()) < 600
    assert set(log.bundle) == {identity(read_bundle(bundle).settings)}
    assert 0.4 < log.measures[0, 0] < 0.7 and np.isnan(log.measures[:, 2]).all() and abs(log.measures[0, 3] - 0.5) < 0.1
    assert sqlite3.connect(tmp_path / "log.db").execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with open_log(tmp_path / "log.db", {}), sqlite3.connect(tmp_path / "log.db") as other:
        assert other.execute("SELECT count(*) FROM photographs").fetchone() == (6,)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["drift", str(bundle), str(tmp_path / "log.db")])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("no drift yet: 6 photographs are few")


def test_the_command_draws_charts_and_its_exit_status_tells_a_change(bundle, tmp_path, capsys):
    photos = [bundle_set.photograph(seed) // 2 for seed in range(700, 730)]
    log = logged(bundle, photos)
    with open_log(tmp_path / "log.db", read_bundle(bundle).settings) as writer:
        for row in range(len(photos)):
            values = [None if np.isnan(value) else float(value) for value in log.measures[row]]
            writer._connection.execute(
                "INSERT INTO photographs VALUES (NULL, ?, 'a.png', ?, 'good', 0.1, 0.09, ?, ?, ?, ?, ?, ?)",
                (log.time[row], log.bundle[row], *values),
            )
        writer._connection.commit()
    with pytest.raises(SystemExit) as ended:
        cli.main(["drift", str(bundle), str(tmp_path / "log.db"), "--out", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert ended.value.code == 3 and "photographs are darker by 50%" in out and "30 photographs" in err
    page = (tmp_path / "out/drift.html").read_text()
    assert "darker by 50%" in page and "data:image/png;base64," in page and "http" not in page
    assert cv2.imread(str(tmp_path / "out/drift.png")).shape[1] > 500
    with pytest.raises(SystemExit) as ended:
        cli.main(["drift", str(bundle), str(tmp_path / "log.db"), "--since", "2099-01-01"])
    assert ended.value.code == 2 and "no photograph in it since then" in capsys.readouterr().err


def test_logs_and_bundles_from_before_a_measure_was_known_are_read_without_it(bundle, tmp_path):
    photos = [bundle_set.photograph(seed) for seed in range(800, 803)]
    log, path = logged(bundle, photos), tmp_path / "log.db"
    with sqlite3.connect(path) as old:
        old.execute(TABLE.replace(", grain REAL", ""))
        old.execute(f"PRAGMA user_version={SCHEMA}")
        old.execute(
            "INSERT INTO photographs VALUES (NULL, 5.0, 'a.png', 'b', 'good', 0.1, 0.09, 0.5, 0.01, 0.2, 0.5, 0.5)"
        )
    old.close()
    assert read_log(path).measures[0, :2].tolist() == [0.5, 0.01] and np.isnan(read_log(path).measures[0, 5])
    verdict = SimpleNamespace(measures=measure(photos[0]), bad=False, score=0.1, raw_score=0.09)
    for _ in range(2):  # the column is added once
        with open_log(path, read_bundle(bundle).settings) as writer:
            writer.add(Path("b.png"), verdict)
    assert np.isnan(read_log(path).measures[:, 5]).tolist() == [True, False, False]

    folder = shutil.copytree(bundle, tmp_path / "bundle")
    settings = {key: value for key, value in read_bundle(folder).settings.items() if key not in ("format", "files")}
    held = read_held_out(read_bundle(folder))
    tensors = load_file(folder / FILE)
    about = {"photographs": held.photographs, "review": None, "measures": Measures._fields[:5]}
    save_file(
        tensors | {"measures": tensors["measures"][:, :5].copy()}, folder / FILE, {"defectflow": json.dumps(about)}
    )
    write_manifest(folder, settings)
    assert {chart.key for chart in compare(read_bundle(folder), log)} == {"exposure", "sharpness"}


def test_what_is_no_log_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_log(tmp_path / "absent.db")
    (tmp_path / "text.db").write_text("not a database, but a text of some length")
    with pytest.raises(UserError, match="cannot be used as a log"):
        read_log(tmp_path / "text.db")
    other = Path(tmp_path / "other.db")
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (a)")
    for use in (lambda: read_log(other), lambda: open_log(other, {}).__enter__()):
        with pytest.raises(UserError, match="not a log of inspections"):
            use()
    with pytest.raises(UserError, match="not a time"):
        parse_time("tuesday", "--since")
