"""`tail --follow`: each line once, whatever stands in between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import following
from cluster.following import follow, news
from cluster.providers import Cluster, ProviderError


@given(st.lists(st.sampled_from("abc"), min_size=1), st.lists(st.sampled_from("abc")))
def test_text_that_grows_is_told_in_full(seen: list[str], more: list[str]) -> None:
    lines = [f"{number} {text}" for number, text in enumerate([*seen, *more])]
    before = lines[: len(seen)]
    assert news(before, lines) == lines[len(seen) :]
    assert news(before, lines[1:]) == lines[max(len(seen), 1) :]
    assert news(lines, before) == []


def test_what_was_said_too_fast_is_told_as_far_as_it_is_known() -> None:
    assert news(["1", "2"], ["5", "6"]) == ["5", "6"]


class Said:
    """A provider with one cluster, of which each look shows the next text; None: no answer."""

    def __init__(self, *texts: str | None) -> None:
        self.texts, self.looks = list(texts), 0

    def list(self) -> list[Cluster]:
        status = "running" if self.looks < len(self.texts) - 1 else "done"
        return [Cluster("one", "some", "1", status, 1)]

    def tail(self, name: str, lines: int, node: int | None = None) -> str:
        text = self.texts[self.looks]
        self.looks += 1
        if text is None:
            raise ProviderError("has said nothing yet")
        return "\n".join(text.splitlines()[-lines:])


def told(chosen: Said, lines: int = 2) -> list[str]:
    pauses: list[float] = []
    found = list(follow(chosen, "one", lines, pause=pauses.append))  # type: ignore[arg-type]
    assert len(pauses) == len(chosen.texts) - 1
    return found


def test_r014_tail_follows_until_the_end() -> None:
    texts = (None, "1\n2\n3\n", "1\n2\n3\n", None, "1\n2\n3\n4\n", "1\n2\n3\n", "4\n5\n6\n")
    assert told(Said(*texts)) == ["2", "3", "4", "5", "6"]


def test_more_lines_than_the_window_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "WINDOW", 2)
    assert told(Said("1\n2\n3\n4\n"), 3) == ["2", "3", "4"]


def test_a_cluster_that_ended_without_a_word_is_told() -> None:
    with pytest.raises(ProviderError, match="has said nothing yet"):
        told(Said(None, None))
