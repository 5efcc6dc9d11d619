"""The laws of the house that no linter knows: layers, names of files, sizes, imports."""

import ast
import functools
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
TOP_PACKAGES = sorted({package.partition(".")[0] for package in PACKAGES})
# A package imports itself and lower layers, never its neighbours.
LAYERS: tuple[set[str], ...] = (
    {"utils"},
    {"cluster", "env", "policy", "store"},
    {"evolution"},
    {"es", "ga", "nevergrad_es"},
)
ALL_LAYERS = {package for layer in LAYERS for package in layer}
MAX_LINES = 400
MAX_FUNCTION_LINES = 40
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}


def files(*folders: str) -> list[Path]:
    return sorted(
        path.relative_to(ROOT)
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    )


OURS = files(*TOP_PACKAGES)
ALL = [*OURS, *files("tests", "benchmarks")]


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), filename=str(path))


@functools.cache
def imported(path: Path) -> set[str]:
    """Dotted names of what a file imports; of ``from a import b`` both a and a.b."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


def is_script(path: Path) -> bool:
    """True for files that do something when run."""
    tests = [ast.unparse(node.test) for node in tree(path).body if isinstance(node, ast.If)]
    return any("__main__" in test for test in tests)


def test_every_package_is_listed_and_has_a_layer() -> None:
    assert set(TOP_PACKAGES) <= ALL_LAYERS
    folders = {str(path.parent).replace("/", ".") for path in OURS}
    assert folders == set(PACKAGES)
    assert {path.parent for path in OURS} == {p.parent for p in OURS if p.name == "__init__.py"}


def test_scripts_are_imported_by_nobody() -> None:
    """But tests and benchmarks, which run experiments in their own process."""
    scripts = [str(path) for path in OURS if is_script(path)]
    assert {"es/experiment.py", "es/head.py", "es/worker.py"} <= set(scripts)
    modules = {script.removesuffix(".py").replace("/", ".") for script in scripts}
    found = {str(path): imported(path) & modules for path in OURS}
    assert {path: names for path, names in found.items() if names} == {}


def test_imports_follow_the_layers() -> None:
    broken = {}
    for path in OURS:
        if is_script(path):
            continue
        own = path.parts[0]
        level = next(number for number, names in enumerate(LAYERS) if own in names)
        allowed = {own} | set().union(*LAYERS[:level])
        used = {name.partition(".")[0] for name in imported(path)} & ALL_LAYERS
        if not used <= allowed:
            broken[str(path)] = used - allowed
    assert broken == {}


def test_imports_are_absolute() -> None:
    froms = [(p, n) for p in ALL for n in ast.walk(tree(p)) if isinstance(n, ast.ImportFrom)]
    assert [f"{path}, line {node.lineno}" for path, node in froms if node.level > 0] == []


def test_file_names_shadow_nothing() -> None:
    """A script's folder comes first on the path: es/random.py would replace the stdlib's."""
    named = [path for path in ALL if path.name != "__init__.py"]
    taken = sys.stdlib_module_names | set(TOP_PACKAGES)
    assert [str(path) for path in named if path.stem in taken] == []
    first_on_the_path = {path.parent for path in ALL if is_script(path)} | {Path("tests")}
    installed = set(metadata.packages_distributions())
    among_them = [path for path in named if path.parent in first_on_the_path]
    assert [str(path) for path in among_them if path.stem in installed] == []


def test_init_files_re_export_nothing() -> None:
    for path in (path for path in OURS if path.name == "__init__.py"):
        nodes = list(ast.walk(tree(path)))
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        taken = {
            alias.asname or alias.name
            for node in nodes
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in TOP_PACKAGES
            for alias in node.names
        }
        assert taken <= used, path
        assert "__all__" not in used, path


def test_no_file_is_too_long() -> None:
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in ALL}
    assert {path: n for path, n in lengths.items() if n > MAX_LINES} == {}


def test_no_function_is_too_long() -> None:
    lengths = {
        f"{path}, {node.name}": (node.end_lineno or 0) - node.lineno + 1 - docstring_lines(node)
        for path in OURS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_config(node)
    }
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


def docstring_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Explaining much is no fault."""
    if ast.get_docstring(function) is None:
        return 0
    return (function.body[0].end_lineno or 0) - function.body[0].lineno + 1


def is_config(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """True for a config of Sacred's: a list of values, each with its comment."""
    return any(ast.unparse(each) == "ex.config" for each in function.decorator_list)


def test_nothing_prints() -> None:
    assert [str(p) for p in OURS for call in calls(p) if ast.unparse(call.func) == "print"] == []


def test_a077_nothing_unpickles() -> None:
    tops = {path: {name.partition(".")[0] for name in imported(path)} for path in OURS}
    assert [str(path) for path, names in tops.items() if names & UNSAFE_MODULES] == []
    for path, call in [(each, call) for each in OURS for call in calls(each)]:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert given.get("allow_pickle", "False") == "False", path
        if ast.unparse(call.func) == "torch.load":
            assert given.get("weights_only") == "True", path


def run(program: str, folder: Path, *flags: str) -> str:
    command = [sys.executable, *flags, "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a004_sacred_is_the_library_and_our_packages_are_ours(tmp_path: Path) -> None:
    """Also next to the folder ``sacred/``, and from anywhere without a PYTHONPATH."""
    assert not list((ROOT / "sacred").rglob("*.py"))
    program = (
        "import importlib.util as u\n"
        f"for name in {['sacred', *TOP_PACKAGES]}: print(u.find_spec(name).origin)"
    )
    for folder, flags in ((ROOT, ()), (ROOT / "es", ()), (tmp_path, ("-I",))):
        sacred, *ours = run(program, folder, *flags).split()
        assert not Path(sacred).is_relative_to(ROOT / "sacred")
        assert Path(sacred).parts[-2:] == ("sacred", "__init__.py")
        assert [Path(each).parent for each in ours] == [ROOT / name for name in TOP_PACKAGES]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout")
def test_git_ignores_none_of_our_files() -> None:
    """Stock .gitignore templates ignore ``env/``."""
    names = ["env/sphere.py", *map(str, ALL)]
    command = ["git", "check-ignore", "--no-index", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == []
    assert done.returncode == 1  # git's word for: none of them


EVALUATE = """
import runpy, sys
import numpy as np
runpy.run_path("es/worker.py", run_name="not_main")
from evolution.evaluation import LocalEvaluator, Part
from evolution.noise import NoiseTable
from evolution.population import Repeated
from evolution.problem import choose_problem

problem = choose_problem(env_name="Sphere-v0", policy_kwargs={"hidden_sizes": []})
with NoiseTable(1000, 1) as noise, LocalEvaluator(problem, noise) as evaluator:
    evaluator.evaluate([Part(Repeated(np.zeros(20, np.float32), 3), np.zeros((3, 1), int))])
print([name for name in ("torch", "sacred", "envpool", "matplotlib") if name in sys.modules])
"""


def test_a_worker_imports_nothing_heavy() -> None:
    """Workers are up within a second because of that."""
    assert run(EVALUATE, ROOT).strip() == "[]"
