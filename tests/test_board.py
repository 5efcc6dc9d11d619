"""A006: what a user sees in the browser at the end of a day."""

import json
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import EXPERIMENT, Command, Place, setting
from stores import end_server

playwright = pytest.importorskip("playwright.sync_api", reason="needs requirements-dev.txt")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
BOARD = "store/board.py"
INSTALL_SECONDS = 900.0


def free_port() -> int:
    """A port that nobody uses just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


PORT = free_port()
ADDRESS = f"http://127.0.0.1:{PORT}/sacred"
TABLE_ROW = ".fixedDataTableRowLayout_rowWrapper"
RUN = setting(num_generations=6, eval_episodes=3, final_episodes=4, num_workers=1, seed=1)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="Omniboard needs Node.js with npm"),
    pytest.mark.skipif(CHROMIUM is None, reason="a browser is needed: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A machine with two runs in its store and the board on it."""
    with Place(store=True) as place:
        place.runs.mkdir()
        # An installation takes a minute or two: one serves all test runs.
        (place.runs / "board").symlink_to(request.config.cache.mkdir("board"))
        assert place.start(BOARD, "--install").end(INSTALL_SECONDS) == 0
        for _ in range(2):
            place.run(EXPERIMENT, "with", "sphere", *RUN)
        board = place.start(BOARD, f"--port={PORT}")
        board.says("all runs at")
        yield place
        check_end(board)
        end_server(place.runs / "store.sqlite")


def check_end(board: Command) -> None:
    board.send(signal.SIGINT)
    assert board.end() == 0, board


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """A page of the board, and what went wrong on it."""

    def __init__(self, browser: Any) -> None:
        self.faults: list[str] = []
        self.page = browser.new_page(viewport={"width": 1500, "height": 950})
        self.page.on("response", self._note)
        self.page.on("requestfailed", lambda request: self.faults.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.goto(ADDRESS)
        self.page.wait_for_selector(TABLE_ROW)
        self.page.get_by_text("COMPLETED").first.wait_for()

    def _note(self, response: Any) -> None:
        if response.status >= 400:
            self.faults.append(f"{response.status} {response.url}")

    def open_run(self) -> None:
        """Show the details of the newest run."""
        self.page.locator(TABLE_ROW).nth(1).click(position={"x": 60, "y": 12})
        self.page.get_by_text("Details for:").wait_for()

    def columns(self) -> dict[str, str]:
        """The metric columns that the table has, as the board tells them."""
        answer = self.page.request.get(f"{ADDRESS}/api/v1/Omniboard.Metric.Columns")
        return {each["name"]: each["metric_name"] for each in answer.json()}

    def tab(self, name: str, content: str) -> None:
        """Open a tab of the run, and see that it shows something."""
        self.page.get_by_text(name, exact=True).first.click()
        self.page.get_by_text(content).first.wait_for()


@pytest.fixture
def visit(place: Place, browser: Any) -> Iterator[Visit]:
    visit = Visit(browser)
    yield visit
    visit.page.close()
    assert visit.faults == []


def test_a006_the_table_shows_our_runs(visit: Visit) -> None:
    rows = visit.page.locator(TABLE_ROW)
    playwright.expect(rows).to_have_count(3)  # the first holds the titles
    for number, run_id in ((1, "2"), (2, "1")):
        playwright.expect(rows.nth(number)).to_contain_text(run_id)
        playwright.expect(rows.nth(number)).to_contain_text("COMPLETED")
    for title in ("fitness", "generation", "steps/s"):
        assert visit.columns()[title], title


def test_a006_a_run_shows_all_it_has(visit: Visit) -> None:
    visit.open_run()
    visit.page.get_by_text("current fitness", exact=True).first.wait_for()  # the plot's legend
    visit.tab("Captured Out", "theta sha256")
    visit.tab("Config", "pop_size")
    visit.tab("Artifacts", "Policy_ep_6.model")
    visit.tab("Source Files", "source://cluster/wire.py")  # more as one scrolls
    visit.tab("Host Info", "hostname")
    visit.tab("Run Info", "versions")


def test_a006_artifacts_can_be_downloaded(visit: Visit, tmp_path: Path) -> None:
    import torch

    visit.open_run()
    visit.tab("Artifacts", "Policy_ep_6.model")
    visit.page.get_by_text("Policy_ep_6.model").first.click()
    with visit.page.expect_download() as coming:
        visit.page.locator("[test-attr='down-btn-Policy_ep_6.model']").click()
    coming.value.save_as(tmp_path / "policy")
    assert torch.load(tmp_path / "policy", weights_only=True)


def test_a110_notes_are_kept(visit: Visit, browser: Any) -> None:
    visit.page.get_by_text("Enter Notes").first.click()
    visit.page.locator("textarea").first.fill("worth another look")
    visit.page.locator(".editable-submit").first.click()
    visit.page.get_by_text("worth another look").first.wait_for()
    visit.page.reload()
    visit.page.get_by_text("worth another look").first.wait_for()


def test_only_this_machine_can_look(place: Place) -> None:
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    addresses = [line.split()[1] for line in listening.splitlines() if f":{PORT:04X} " in line]
    assert {address.rpartition(":")[0] for address in addresses} == {"0100007F"}


def test_a_port_in_use_is_told(place: Place) -> None:
    other = place.start(BOARD, f"--port={PORT}")
    assert other.end() == 1
    assert f"port {PORT}: Address already in use; choose another by --port" in other.err
    assert "Warning" not in other.err


def test_without_node_the_board_says_what_it_needs(place: Place) -> None:
    place.env, before = {**place.env, "PATH": "/nowhere"}, place.env
    try:
        other = place.start(BOARD)
        assert other.end() == 1
        assert "the board needs Node.js" in other.err
    finally:
        place.env = before


def test_the_recipe_is_pinned() -> None:
    recipe = Path(__file__).resolve().parent.parent / "sacred" / "omniboard"
    wanted = json.loads((recipe / "package.json").read_text())["dependencies"]
    locked = json.loads((recipe / "package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        assert locked[f"node_modules/{name}"]["version"] == version
