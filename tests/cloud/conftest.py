"""A cloud whose machines run, for the tests of a file."""

from collections.abc import Iterator

import pytest
from commands import Place
from fake_cloud import Cloud, booting_cloud


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with booting_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest.fixture
def place() -> Iterator[Place]:
    with Place() as place:
        yield place
