"""Fixtures that several unit tests share."""

import pytest


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory):
    """A small bundle, made once; tests that alter it copy it first."""
    import bundle_set

    return bundle_set.make(tmp_path_factory.mktemp("bundle"))
