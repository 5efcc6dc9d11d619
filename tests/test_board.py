"""A006: what a user sees in the browser at the end of a day."""

import json
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from commands import EXPERIMENT, ROOT, Command, Place, setting, wait_until
from sacred import Experiment
from sacred.run import Run
from stores import connect, end_server

from store.embedded.start import embedded_url
from store.observer import SpoolingObserver
from store.shipper import FULL_SERIES, MOST_POINTS

playwright = pytest.importorskip("playwright.sync_api", reason="needs requirements-dev.txt")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
BOARD = "store/board.py"
INSTALL_SECONDS = 900.0


def free_port() -> int:
    """A port that nobody uses just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


TABLE_ROW = ".fixedDataTableRowLayout_rowWrapper"
ALONE = {"eval_episodes": 3, "final_episodes": 4, "evaluator": "local", "seed": 1}
SHORT = ("sphere", *setting(**ALONE, num_generations=6))
ENDLESS = ("sphere", *setting(**ALONE, num_generations=1_000_000))
# How runs come to be, and what the table calls them.
ENDS = {
    "killed": (ENDLESS, signal.SIGKILL, "PROBABLY_DEAD"),
    "interrupted": (ENDLESS, signal.SIGINT, "INTERRUPTED"),
    "terminated": (ENDLESS, signal.SIGTERM, "INTERRUPTED"),
    "failed": (("env_name=stumbles:Stumbles-v0", "hidden_sizes=[]", *SHORT[1:]), None, "FAILED"),
    "one": (SHORT, None, "COMPLETED"),
}
STUMBLES = """
import gymnasium, numpy

class Stumbles(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Discrete(2), gymnasium.spaces.Discrete(2)
    episodes = 0

    def reset(self, *, seed=None, options=None):
        Stumbles.episodes += 1
        if Stumbles.episodes > 200:
            raise RuntimeError("the motor is on fire")
        return 0, {}

    def step(self, action):
        return 0, 1.0, True, False, {}

gymnasium.register("Stumbles-v0", Stumbles)
"""
LONG = 200_000  # points, of which the store shows some

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="Omniboard needs Node.js with npm"),
    pytest.mark.skipif(CHROMIUM is None, reason="a browser is needed: apt-get install chromium"),
]


class Scene:
    """A machine, the runs in its store, and the board on it."""

    port = 0  # of the board, chosen when it is started: another process might take it before

    def __init__(self, place: Place) -> None:
        self.place, self.file = place, place.runs / "store.sqlite"
        (place.folder / "stumbles.py").write_text(STUMBLES)
        place.env["PYTHONPATH"] = str(place.folder)
        embedded_url(self.file)  # up before six runs want it
        started = {name: place.start(EXPERIMENT, "with", *end[0]) for name, end in ENDS.items()}
        self.ids = {name: run_id(command) for name, command in started.items()}
        for name, command in started.items():
            if (number := ENDS[name][1]) is not None:
                command.says("generation 1/")
                command.send(number)
        for command in started.values():
            command.end()
        self.store: Any = connect(embedded_url(self.file)).sacred
        self.ids["long"] = log_long_series(self.store, place.runs / "spool")
        # As if more than two minutes had gone since then.
        long_ago = datetime.now(UTC) - timedelta(minutes=5)
        killed = {"_id": self.ids["killed"]}
        self.store.runs.update_one(killed, {"$set": {"heartbeat": long_ago}})

    @property
    def address(self) -> str:
        """Of the board."""
        return f"http://127.0.0.1:{self.port}/sacred"

    def status(self, name: str) -> str:
        """What the store says."""
        return self.store.runs.find_one({"_id": self.ids[name]})["status"]


def run_id(command: Command) -> int:
    """The id of the run that a process has begun."""
    match = wait_until(lambda: re.search(r'Started run with ID "(\d+)"', command.err), command)
    return int(match[1])


def log_long_series(store: Any, spools: Path) -> int:
    """A run of very many generations, made without evolving anything; returns its id."""
    long = Experiment("long", interactive=True, save_git_info=False)
    observer = SpoolingObserver(lambda: store, spools)
    long.observers.append(observer)

    @long.main
    def run(_run: Run) -> None:
        for number in range(LONG):
            _run.log_scalar("current fitness", number % 1000, number)

    long.run()
    assert observer.left_behind is None
    return observer.run_entry["_id"]


@pytest.fixture(scope="module")
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with Place(store=True) as place:
        place.runs.mkdir()
        # An installation takes a minute or two: one serves all test runs.
        (place.runs / "board").symlink_to(request.config.cache.mkdir("board"))
        assert place.start(BOARD, "--install").end(INSTALL_SECONDS) == 0
        scene = Scene(place)
        scene.port = free_port()
        board = place.start(BOARD, f"--port={scene.port}")
        board.says("all runs at")
        yield scene
        check_end(board)
        scene.store.client.close()
        end_server(scene.file)


@pytest.fixture(scope="module")
def place(scene: Scene) -> Place:
    return scene.place


def check_end(board: Command) -> None:
    board.send(signal.SIGINT)
    assert board.end() == 0, board


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium.new_context(viewport={"width": 1700, "height": 1100})
        chromium.close()


class Visit:
    """A page of the board, and what went wrong on it."""

    def __init__(self, browser: Any, scene: Scene) -> None:
        self.faults: list[str] = []
        self._ids, self._address = scene.ids, scene.address
        self.page = browser.new_page()
        self.page.on("response", self._note)
        self.page.on("requestfailed", lambda request: self.faults.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.goto(self._address)
        self._wait()

    def _note(self, response: Any) -> None:
        if response.status >= 400:
            self.faults.append(f"{response.status} {response.url}")

    def _wait(self) -> None:
        self.row("one").get_by_text("COMPLETED", exact=True).wait_for()

    def reload(self) -> None:
        """Ask the store again."""
        self.page.reload()
        self._wait()

    def row(self, name: str) -> Any:
        """The line of a run in the table: the newest comes first, under the titles."""
        newest = max(self._ids.values())
        return self.page.locator(TABLE_ROW).nth(newest - self._ids[name] + 1)

    def open_run(self, name: str) -> None:
        """Show the details of a run."""
        self.row(name).click(position={"x": 60, "y": 12})
        self.page.get_by_text(f"(Id: {self._ids[name]})").wait_for()

    def columns(self) -> dict[str, str]:
        """The metric columns that the table has, as the board tells them."""
        answer = self.page.request.get(f"{self._address}/api/v1/Omniboard.Metric.Columns")
        return {each["name"]: each["metric_name"] for each in answer.json()}

    def tab(self, name: str, content: str) -> None:
        """Open a tab of the run, and see that it shows something."""
        self.page.get_by_text(name, exact=True).first.click()
        self.page.get_by_text(content).first.wait_for()

    def look_into(self, file: str) -> Any:
        """Open a file of the list; returns what it holds, as the page shows it."""
        self.page.get_by_text(file, exact=True).first.click()
        return self.page.locator(".accordion__body:not(.accordion__body--hidden) pre")

    def type_tag(self, name: str, tag: str) -> None:
        """Give a run a tag, as a user does."""
        self.row(name).locator(".select-cell input").first.fill(tag)
        self.page.get_by_text(f"Create tag '{tag}'", exact=True).click()
        self.row(name).get_by_text(tag, exact=True).wait_for()

    def type_notes(self, name: str, notes: str) -> None:
        """Give a run notes, where it has none."""
        self.row(name).get_by_text("Enter Notes").click()
        self.page.locator("textarea").first.fill(notes)
        self.page.locator(".editable-submit").first.click()
        self.row(name).get_by_text(notes).wait_for()


@pytest.fixture
def visit(scene: Scene, browser: Any) -> Iterator[Visit]:
    visit = Visit(browser, scene)
    yield visit
    visit.page.close()
    assert visit.faults == []


def test_a006_the_table_shows_our_runs(visit: Visit, scene: Scene) -> None:
    playwright.expect(visit.page.locator(TABLE_ROW)).to_have_count(len(scene.ids) + 1)
    for name, (*_, status) in ENDS.items():
        playwright.expect(visit.row(name)).to_contain_text(str(scene.ids[name]))
        visit.row(name).get_by_text(status, exact=True).wait_for()
    assert scene.status("killed") == "RUNNING"  # it could not say that it was killed
    for title in ("fitness", "generation", "steps/s"):
        assert visit.columns()[title], title


def test_a006_a_run_shows_all_it_has(visit: Visit) -> None:
    visit.open_run("one")
    visit.page.get_by_text("current fitness", exact=True).first.wait_for()  # the plot's legend
    visit.tab("Captured Out", "theta sha256")
    visit.tab("Config", "pop_size")
    visit.tab("Artifacts", "Policy_ep_6.model")
    visit.tab("Source Files", "source://cluster/addresses.py")  # more as one scrolls
    visit.tab("Host Info", "hostname")
    visit.tab("Run Info", "versions")


def test_a006_the_sources_are_ours(visit: Visit) -> None:
    visit.open_run("one")
    visit.tab("Source Files", "source://cluster/addresses.py")
    shown = visit.look_into("cluster/addresses.py")
    playwright.expect(shown).to_contain_text("import")
    assert shown.inner_text().strip() == (ROOT / "cluster/addresses.py").read_text().strip()


@pytest.mark.parametrize("name", ["interrupted", "terminated", "failed"])
def test_a006_runs_that_ended_early_have_their_last_policy(
    name: str, visit: Visit, scene: Scene
) -> None:
    logged = scene.store.metrics.find_one({"run_id": scene.ids[name], "name": "gen"})
    last = f"Policy_ep_{int(max(logged['steps'])) + 1}.model"
    visit.open_run(name)
    visit.page.get_by_text("current fitness", exact=True).first.wait_for()
    visit.tab("Artifacts", last)
    visit.tab("Captured Out", "generation 1/")
    visit.tab("Source Files", "source://cluster/addresses.py")
    visit.tab("Run Info", "versions")
    if name == "failed":
        visit.tab("Fail Trace", "the motor is on fire")


def test_a006_a_very_long_run_is_drawn(visit: Visit, scene: Scene) -> None:
    shown = scene.store.metrics.find_one({"run_id": scene.ids["long"]})
    assert 10_000 < len(shown["steps"]) <= MOST_POINTS < LONG
    visit.open_run("long")
    visit.page.get_by_text("current fitness", exact=True).first.wait_for()
    line = visit.page.locator(".scatterlayer path.js-line").first
    line.wait_for(state="attached")
    assert line.get_attribute("d").count("L") > LONG / 1000  # up and down once in 1000 points
    visit.tab("Artifacts", FULL_SERIES)


def test_a006_artifacts_can_be_downloaded(visit: Visit, tmp_path: Path) -> None:
    import torch

    visit.open_run("one")
    visit.tab("Artifacts", "Policy_ep_6.model")
    visit.page.get_by_text("Policy_ep_6.model").first.click()
    with visit.page.expect_download() as coming:
        visit.page.locator("[test-attr='down-btn-Policy_ep_6.model']").click()
    coming.value.save_as(tmp_path / "policy")
    assert torch.load(tmp_path / "policy", weights_only=True)


def test_a110_notes_and_tags_are_kept(visit: Visit) -> None:
    visit.type_notes("one", "worth another look")
    for tag in ("good", "second try"):
        visit.type_tag("one", tag)
    visit.reload()
    for text in ("worth another look", "good", "second try"):
        visit.row("one").get_by_text(text, exact=True).wait_for()


def test_a110_notes_and_tags_outlive_a_resume(visit: Visit, scene: Scene) -> None:
    visit.type_notes("terminated", "goes on tomorrow")
    visit.type_tag("terminated", "unfinished")
    again = scene.place.start(EXPERIMENT, "resume", "with", f"run_id={scene.ids['terminated']}")
    again.says("generation ")
    wait_until(lambda: scene.status("terminated") == "RUNNING", again)
    again.send(signal.SIGTERM)
    again.end()
    visit.reload()
    for text in ("INTERRUPTED", "goes on tomorrow", "unfinished"):
        visit.row("terminated").get_by_text(text, exact=True).wait_for()


def test_only_this_machine_can_look(scene: Scene) -> None:
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    addresses = [
        line.split()[1] for line in listening.splitlines() if f":{scene.port:04X} " in line
    ]
    assert {address.rpartition(":")[0] for address in addresses} == {"0100007F"}


def test_a_port_in_use_is_told(scene: Scene) -> None:
    other = scene.place.start(BOARD, f"--port={scene.port}")
    assert other.end() == 1
    assert f"port {scene.port}: Address already in use; choose another by --port" in other.err
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
    recipe = ROOT / "sacred" / "omniboard"
    wanted = json.loads((recipe / "package.json").read_text())["dependencies"]
    locked = json.loads((recipe / "package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        assert locked[f"node_modules/{name}"]["version"] == version
