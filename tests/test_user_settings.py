"""What a user sets once: in the environment, or in a file."""

from pathlib import Path

import pytest
from commands import EXPERIMENT, Place

from store import location
from utils.settings import SettingsError, setting, settings_file

STORE = '[store]\nurl = "mongodb://elsewhere/db"\n[runs]\nfolder = "/somewhere"\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVO_SETTINGS", str(tmp_path / "settings.toml"))
    monkeypatch.delenv("EVO_RUNS")
    return tmp_path / "settings.toml"


def test_the_environment_comes_before_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(STORE)
    assert setting("store", "url") == location.store_url() == "mongodb://elsewhere/db"
    assert location.runs_folder() == Path("/somewhere")
    monkeypatch.setenv("MONGO_URL", "mongodb://here/db")
    assert setting("store", "url") == location.store_url() == "mongodb://here/db"
    assert location.has_store()


def test_without_a_file_there_are_no_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert settings_file() == tmp_path / "distributed-evolution" / "settings.toml"
    assert setting("store", "url") is None
    settings_file().parent.mkdir()
    settings_file().write_text(STORE)
    assert setting("store", "url") == "mongodb://elsewhere/db"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[store\n", "cannot be read: "),
        ("\xff", "cannot be read: "),
        ("[store]\nurl = 3\n", r"\[store\] url = 3; known, as text: \[store\] url"),
        ("[store]\nurll = 'x'\n", r"\[store\] urll = 'x'; known"),
        ("[shop]\nurl = 'x'\n", r"\[shop\] url = 'x'; known"),
        ("url = 'x'\n", r"\[url\]  = 'x'; known"),
        (None, "there is no file"),
    ],
)
def test_a_file_that_cannot_be_is_refused(text: str | None, reason: str, file: Path) -> None:
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    for ask in (lambda: setting("store", "url"), location.store_url):
        with pytest.raises((SettingsError, location.StoreError), match=reason) as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_a_run_says_what_is_wrong_with_the_file_in_one_line(tmp_path: Path) -> None:
    wrong = tmp_path / "settings.toml"
    wrong.write_text("[shop]\nurl = 'x'\n")
    with Place(store=True) as place:
        place.env["EVO_SETTINGS"] = str(wrong)
        del place.env["EVO_RUNS"]
        command = place.start(EXPERIMENT, "with", "sphere")
        assert command.end() != 0
        assert "[shop] url = 'x'; known, as text: [store] url" in command.err
        assert "Traceback" not in command.err
