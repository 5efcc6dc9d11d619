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
LAYERS = (
    {"utils"},
    {"cluster", "env", "policy", "store"},
    {"evolution"},
    {"es", "ga", "nevergrad_es"},
)
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

each_of_ours = pytest.mark.parametrize("path", OURS, ids=str)
each_file = pytest.mark.parametrize("path", ALL, ids=str)


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), filename=str(path))


def imported(path: Path) -> Iterator[str]:
    """Dotted names of what a file imports; of ``from a import b`` both a and a.b."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_script(path: Path) -> bool:
    """True for files that do something when run."""
    return any(
        isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
        for node in tree(path).body
    )


def layer(package: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if package in names)


SCRIPTS = [path for path in OURS if is_script(path)]


def test_every_package_has_a_layer_and_is_listed() -> None:
    assert set(TOP_PACKAGES) <= set.union(*LAYERS)
    found = {str(path.parent).replace("/", ".") for path in OURS if path.name == "__init__.py"}
    assert found == set(PACKAGES)
    assert {path.parent for path in OURS} == {Path(p.replace(".", "/")) for p in PACKAGES}


def test_the_scripts_that_users_run_are_scripts() -> None:
    assert {"es/experiment.py", "es/head.py", "es/worker.py"} <= {str(path) for path in SCRIPTS}


@each_of_ours
def test_imports_follow_the_layers(path: Path) -> None:
    if path in SCRIPTS:
        return
    own = path.parts[0]
    lower = set().union(*LAYERS[: layer(own)])
    used = {name.partition(".")[0] for name in imported(path)} & set.union(*LAYERS)
    assert used <= lower | {own}


@each_file
def test_scripts_are_imported_by_nobody(path: Path) -> None:
    if path.parts[0] == "tests":
        return
    modules = {str(script.with_suffix("")).replace("/", ".") for script in SCRIPTS}
    assert not modules & set(imported(path))


@each_file
def test_imports_are_absolute(path: Path) -> None:
    relative = [n for n in ast.walk(tree(path)) if isinstance(n, ast.ImportFrom) and n.level > 0]
    assert not relative


@each_file
def test_file_names_shadow_nothing(path: Path) -> None:
    """A script's folder comes first on the path: es/random.py would replace the stdlib's."""
    if path.name == "__init__.py":
        return
    assert path.stem not in sys.stdlib_module_names
    assert path.stem not in TOP_PACKAGES
    if path.parent in {script.parent for script in SCRIPTS} | {Path("tests"), Path("benchmarks")}:
        assert path.stem not in metadata.packages_distributions()


@pytest.mark.parametrize("package", TOP_PACKAGES)
def test_init_files_re_export_nothing(package: str) -> None:
    for path in files(package):
        if path.name != "__init__.py":
            continue
        nodes = list(ast.walk(tree(path)))
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        taken = {
            alias.asname or alias.name
            for node in nodes
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in TOP_PACKAGES
            for alias in node.names
        }
        assert taken <= used
        assert "__all__" not in used


@each_file
def test_no_file_is_too_long(path: Path) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= MAX_LINES


def is_config(function: ast.AST) -> bool:
    """True for Sacred's config functions: a list of values, each with its comment."""
    decorators = getattr(function, "decorator_list", [])
    return any("config" in ast.unparse(decorator) for decorator in decorators)


@each_of_ours
def test_no_function_is_too_long(path: Path) -> None:
    lengths = {
        f"{node.name}, line {node.lineno}": (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_config(node)
    }
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


@each_of_ours
def test_nothing_prints(path: Path) -> None:
    calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    assert "print" not in {ast.unparse(call.func) for call in calls}


@each_of_ours
def test_nothing_unpickles(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imported(path)} & UNSAFE_MODULES
    for call in (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert given.get("allow_pickle", "False") == "False"
        if ast.unparse(call.func) == "torch.load":
            assert given.get("weights_only") == "True"


def run(program: str, folder: Path, *flags: str) -> str:
    command = [sys.executable, *flags, "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a004_sacred_is_the_library_and_our_packages_are_ours(tmp_path: Path) -> None:
    """Also next to the folder ``sacred/``, and from anywhere without a PYTHONPATH."""
    assert not list((ROOT / "sacred").rglob("*.py"))
    program = (
        "import importlib.util as u, sys\n"
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
    names = [str(path) for path in ALL]
    command = ["git", "check-ignore", "--no-index", "env/sphere.py", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == []
    assert done.returncode == 1  # none of them is ignored


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
    """Workers start within a second because of that; ``es/experiment.py`` starts many."""
    assert run(EVALUATE, ROOT).strip() == "[]"
