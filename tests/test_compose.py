"""What a group runs on its server: checked as far as one can without Docker."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).resolve().parent.parent / "sacred"
COMPOSE = yaml.safe_load((FOLDER / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_a006_the_file_is_one_of_its_kind() -> None:
    specification = pytest.importorskip("compose_spec").ComposeSpecification
    assert set(specification.model_validate(COMPOSE).services) == {"mongo", "omniboard"}


@pytest.mark.parametrize("service", SERVICES)
def test_w40_images_are_pinned_and_watched(service: str) -> None:
    assert re.search(r":\d+\.\d+\.\d+$", SERVICES[service]["image"])
    assert SERVICES[service]["healthcheck"]["test"]
    assert SERVICES[service]["restart"] == "unless-stopped"


@pytest.mark.parametrize("service", SERVICES)
def test_w40_nothing_listens_beyond_the_machine(service: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service]["ports"])


def test_w40_passwords_are_not_in_the_repository() -> None:
    used = set(re.findall(r"\$\{(\w+)", (FOLDER / "docker-compose.yml").read_text()))
    example = dict(
        line.split("=")
        for line in (FOLDER / ".env.example").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    assert used == set(example)
    assert example["MONGO_PASSWORD"] == ""


def test_the_board_is_the_one_that_is_installed_without_docker() -> None:
    recipe = (FOLDER / "omniboard" / "package.json").read_text()
    version = SERVICES["omniboard"]["image"].partition(":")[2]
    assert f'"omniboard": "{version}"' in recipe
