from defectflow.reporting.disk_use import bytes_of, disk_facts


def test_files_and_folders_are_summed_and_what_is_absent_takes_nothing(tmp_path):
    (tmp_path / "pictures/deep").mkdir(parents=True)
    (tmp_path / "pictures/a.png").write_bytes(bytes(10))
    (tmp_path / "pictures/deep/b.png").write_bytes(bytes(5))
    (tmp_path / "one.csv").write_bytes(bytes(2))
    assert bytes_of([tmp_path / "pictures", tmp_path / "one.csv", tmp_path / "absent"]) == 17


def test_the_disk_is_told_by_kind_and_features_that_are_gone_apart(tmp_path):
    (tmp_path / "banks").write_bytes(bytes(3_000_000))
    kinds, features = (
        {"memory banks": [tmp_path / "banks"], "masks": []},
        {"images": 4, "bytes": 24_000_000, "fold_bank_bytes": 2_000_000},
    )
    freed = disk_facts(kinds, features | {"kept": False, "keep_features": "auto"})
    assert freed == [
        ("disk", "3.0 MB (0.75 MB a picture): memory banks 3.0 MB"),
        (
            "while it ran",
            "patch features 24.0 MB (6.00 MB a picture), banks of folds 2.0 MB; removed (keep_features: auto)",
        ),
    ]
    kept = disk_facts(kinds, features | {"kept": True, "keep_features": "all"})
    assert kept == [
        ("disk", "29.0 MB (7.25 MB a picture): patch features 24.0 MB, banks of folds 2.0 MB, memory banks 3.0 MB")
    ]
