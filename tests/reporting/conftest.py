import shutil

import pytest

from tests.reporting.result_files import write_results


@pytest.fixture(scope="session")
def complete_results(tmp_path_factory):
    """A complete results folder, made once; not to be changed."""
    return write_results(tmp_path_factory.mktemp("complete") / "results", films=60)


@pytest.fixture
def folder(complete_results, tmp_path):
    """A copy of the complete results folder, to take apart."""
    return shutil.copytree(complete_results, tmp_path / "results")
