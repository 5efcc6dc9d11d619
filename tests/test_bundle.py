"""What a cluster is given to run: what is committed, and nothing else that lies about."""

import io
import tarfile
from pathlib import Path

import pytest
from aws_moto import commit
from click.testing import CliRunner

from cluster import bundle
from cluster.bundle import archive, make_bundle
from cluster.launch import cli
from cluster.providers import ProviderError
from cluster.words import FIRST, SECOND, fresh_name


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """W-47: names that an earlier filter would have dropped, and a secret that is not committed."""
    folder = tmp_path / "code"
    folder.mkdir()
    for name in ("a.py", ".gitignore", "data.tar", "odd name ü.txt"):
        (folder / name).write_text(f"{name}\n")
    (folder / ".gitignore").write_text("*.pem\n")
    (folder / "key.pem").write_text("secret\n")
    commit(folder)
    return folder


def names(data: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as packed:
        return {member.name for member in packed if member.isfile()}


def test_what_is_committed_is_packed_and_no_more(code: Path) -> None:
    made = make_bundle(code)
    assert names(made.data) == {"a.py", ".gitignore", "data.tar", "odd name ü.txt"}
    assert make_bundle(code) == made and len(made.name) < 30
    (code / "b.py").write_text("b\n")
    (code / "a.py").write_text("changed\n")
    said = r"not in the bundle, .*: a\.py, b\.py; commit them, or say --committed-only"
    with pytest.raises(ProviderError, match=said):
        make_bundle(code)
    again = make_bundle(code, committed_only=True)
    assert again.data == made.data and again.left_out == ("a.py", "b.py")


def test_a_bundle_over_the_limit_names_its_largest_files(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_BYTES", 100)
    with pytest.raises(ProviderError, match=r"100 are allowed; its largest files: odd name ü.txt"):
        make_bundle(code)


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=r"no bundle of .*not a git repository"):
        make_bundle(tmp_path)


def test_compress_packs_the_same(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "ROOT", code)
    out = tmp_path / "source.tar"
    done = CliRunner().invoke(cli, ["compress", f"--out={out}"])
    assert done.exit_code == 0 and out.read_bytes() == archive(code)


def test_a_name_is_two_words_that_are_free() -> None:
    every = {f"{a}-{b}" for a in FIRST for b in SECOND}
    assert len(every) == len(FIRST) * len(SECOND) == 1600
    assert fresh_name(every - {"calm-otter"}) == "calm-otter"
    assert fresh_name(every) not in every
