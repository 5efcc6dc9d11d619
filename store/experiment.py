"""What all our Sacred experiments have in common."""

import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sacred import SETTINGS, Experiment
from sacred.dependencies import get_main_file
from sacred.utils import ConfigAddedError, SacredError, apply_backspaces_and_linefeeds

from store.config_file import read_config_file, split_off_files
from store.location import find_store, runs_folder
from store.observer import SpoolingObserver
from store.resume import run_to_resume
from utils.names import did_you_mean

LEFT_BEHIND = 74  # the exit code, EX_IOERR, of a run of which the store does not have all
ROOT = Path(__file__).resolve().parent.parent
CHOSEN_BY_HAND = ("--file_storage", "--mongo_db", "--unobserved", "--sql", "--tiny_db", "--s3")
CHECKED_COMMANDS = ("run", "check_config")  # before which an experiment checks its config
ONLY_FINAL_BEAT = 1e6  # seconds between Sacred's heartbeats: `store.keeper` has its own


Translate = Callable[[str, Mapping[str, Any]], dict[str, Any]]


class ConfigError(SacredError):
    """A setting that cannot be; the user sees one line."""


class RunError(SacredError):
    """A run that cannot go on; the user sees one line."""


class Terminated(KeyboardInterrupt):
    """The run was told to end by SIGTERM; recorded as INTERRUPTED, like Ctrl-C."""


class OurExperiment(Experiment):
    """Sacred's experiment; what is the user's mistake, or wish, it tells in one line.

    Attributes:
        translate: makes config keys of a config file's name and content.
    """

    translate: Translate = staticmethod(lambda name, content: dict(content))

    def run(
        self,
        command_name: str | None = None,
        config_updates: dict[str, Any] | None = None,
        named_configs: Sequence[str] = (),
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """See Sacred.

        Raises:
            ConfigError: also for a named config or a config key that nobody knows.
        """
        named_configs, files = split_off_files(named_configs)
        self._check_named_configs(named_configs)
        config_updates = {**self._read(files), **(config_updates or {})}
        self.resumes: int | None = None
        if command_name == "resume":
            command_name = self.default_command
            updates = run_to_resume(find_store(), config_updates or {}, str(self.path))
            self.resumes, config_updates = updates
        try:
            return super().run(command_name, config_updates, named_configs, *args, **kwargs)
        except ConfigAddedError as error:
            (added,) = error.__conflicting_configs__
            known = {*error.__config__} - {added}
            text = f"no config key {added!r}.{did_you_mean(added, known)} print_config shows all"
            raise ConfigError(text, print_traceback=False) from error

    def _check_named_configs(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.named_configs:
                hint = did_you_mean(name, self.named_configs)
                text = f"no named config {name!r}.{hint} Known: {', '.join(self.named_configs)}"
                raise ConfigError(text, print_traceback=False)

    def _read(self, files: Sequence[str]) -> dict[str, Any]:
        """What stands in config files: more than a named config says, less than a command line.

        Sacred could read them itself, but it would unpickle them as well.
        """
        found: dict[str, Any] = {}
        with in_one_line(ConfigError, ValueError):
            for name in files:
                found |= self.translate(name, read_config_file(name))
        return found

    def run_commandline(self, argv: Sequence[str] | None = None) -> Any:
        """See Sacred; Ctrl-C and SIGTERM end the program without a trace-back."""
        try:
            run = super().run_commandline(argv)
        except KeyboardInterrupt as end:
            told = signal.SIGTERM if isinstance(end, Terminated) else signal.SIGINT
            sys.exit(128 + told)
        if run is not None and _lost(run):
            sys.exit(LEFT_BEHIND)
        return run


def _lost(run: Any) -> bool:
    """True if an observer does not have all of the run; it has said so itself."""
    left = [each for each in run.observers if getattr(each, "left_behind", None) is not None]
    return bool(left or run._failed_observers)


def new_experiment(
    name: str,
    script: dict[str, Any],
    interactive: bool = False,
    translate: Translate | None = None,
) -> Experiment:
    """An experiment that stores config, console and sources, observed by default.

    Args:
        script: the ``globals()`` of the script that defines the experiment, after its imports.
        translate: makes config keys of a config file's name and content; None: they are ours.
    """
    SETTINGS.CAPTURE_MODE = "sys"  # "fd" loses the last lines when children write too
    SETTINGS.CONFIG.READ_ONLY_CONFIG = True
    SETTINGS.DEFAULT_BEAT_INTERVAL = ONLY_FINAL_BEAT
    SETTINGS.DISCOVER_SOURCES = "none"  # `_describe` names them
    SETTINGS.DISCOVER_DEPENDENCIES = "pkg"  # all that is installed
    ex = OurExperiment(name, base_dir=str(ROOT), save_git_info=False, interactive=interactive)
    if translate is not None:
        ex.translate = translate
    _describe(ex, script)
    ex.captured_out_filter = apply_backspaces_and_linefeeds  # type: ignore[assignment]
    logger = logging.getLogger(name)
    logger.addFilter(_is_news)
    ex.logger = logger  # type: ignore[assignment]
    _observe_by_default(ex)
    ex.command(resume, unobserved=True)
    ex.command(check_config, unobserved=True)
    return ex


def resume(run_id: int) -> None:
    """Go on with the run of that id where it stopped: resume with run_id=12."""
    raise AssertionError(f"run {run_id} was to go on before Sacred made another")


def check_config(network_kwargs: dict[str, Any]) -> None:
    """Refuse a config that cannot be, and start nothing: check_config with lander sigma=0.1."""
    del network_kwargs  # named because Sacred adds keys only to what somebody asks for


def _observe_by_default(ex: OurExperiment) -> None:
    """Observe into the store, unless the command line names another observer."""

    @ex.option_hook
    def choose(options: dict[str, Any]) -> None:
        if options.get("--id"):
            text = "--id: ids are numbers that the store gives; leave it out"
            raise ConfigError(text, print_traceback=False)
        if not any(options.get(name) for name in CHOSEN_BY_HAND):
            spools = runs_folder() / "spool"
            ex.observers.append(SpoolingObserver(find_store, spools, ex.resumes))


def _describe(ex: Experiment, script: dict[str, Any]) -> None:
    """Name the script, where Sacred would name this file, and the sources of the whole suite."""
    ex.doc = script["__doc__"]
    _, ex.mainfile = get_main_file(script, False)
    for mark in sorted(ROOT.glob("*/__init__.py")):
        for path in sorted(mark.parent.rglob("*.py")):
            ex.add_source_file(str(path))


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out Sacred's remark that a named config has a docstring."""
    return "__doc__" not in record.getMessage()


@contextlib.contextmanager
def in_one_line(error_class: type[SacredError], *expected: type[Exception]) -> Iterator[None]:
    """Turn expected errors into one that Sacred shows as a single line."""
    try:
        yield
    except expected as error:
        text = " ".join(str(error).split())
        raise error_class(text, print_traceback=False) from error


def end_on_sigterm() -> None:
    """Let SIGTERM end the run as Ctrl-C does: tidied up, recorded as INTERRUPTED."""

    def terminate(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: it is tidying up
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
