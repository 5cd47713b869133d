"""The pytest plugin: fixtures that certify models with the project's settings, and a marker.

Loaded at every start of pytest where certmix is installed, so it imports pytest alone; everything else waits
until a test asks for it.  It holds no assertions that pytest should rewrite: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from certmix.types import Dataset, Summary


OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "data": (str, "data set: a name, or a path from the root folder (default: cifar10-sample)"),
    "inputs": (lambda text: text if text == "all" else int(text), "how many inputs, or all (default: 100)"),
    "samples": (int, "most samples an input (default: 10000)"),
    "sigma": (float, "noise level"),
    "alpha": (float, "mixing weight of the robust classifier"),
    "failure_probability": (float, "of one input's certificate (default: 0.001)"),
    "device": (str, "where models run (default: auto)"),
}
"""Settings `certmix_NAME` of the ini file: how their text is read, and what they are."""

FOLDERS = {
    "runs": "folder of run folders, where samples are kept (default: in pytest's cache)",
    "run": "folder of the run that the fixture certmix_run reads",
}
MARKER = (
    "certified(radius=..., at_least=..., sigma=..., alpha=..., on=..., ...): what certmix_assert holds a "
    "model against in this test; a test with this marker fails if it asserts nothing"
)
NAMES = {"certmix", __name__}
"""The entry point, and what ``-p`` or ``pytest_plugins`` may name."""
_ASSERTED = pytest.StashKey[bool]()


def pytest_plugin_registered(plugin: object, plugin_name: str, manager: pytest.PytestPluginManager) -> None:
    """Block the other of this module's two names: pytest refuses a module that comes under both."""
    if getattr(plugin, "__name__", None) == __name__:
        for name in NAMES - {plugin_name}:
            manager.set_blocked(name)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the settings to the ini file."""
    for name, what in [*((name, what) for name, (_, what) in OPTIONS.items()), *FOLDERS.items()]:
        parser.addini(f"certmix_{name}", f"certmix: {what}", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker."""
    config.addinivalue_line("markers", MARKER)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a passing test that is marked and asserted nothing."""
    outcome = yield
    if item.get_closest_marker("certified") is not None and not item.stash.get(_ASSERTED, False):
        pytest.fail(
            "marked certified, but nothing was certified: use the fixture certmix_assert, or drop the marker",
            pytrace=False,
        )
    return outcome


@pytest.fixture(scope="session")
def certmix_data(pytestconfig: pytest.Config) -> Dataset:
    """Return the data set that the ini file names, the shipped sample by default."""
    from certmix.data import load

    return load(_settings(pytestconfig).get("data", "cifar10-sample"))


@pytest.fixture(scope="session")
def certmix_runs(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder where samples are kept; each worker of pytest-xdist has its own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    named = pytestconfig.getini("certmix_runs")
    if named:
        return Path(pytestconfig.rootpath) / named / worker
    cache = getattr(pytestconfig, "cache", None)
    return tmp_path_factory.mktemp("certmix-runs") if cache is None else cache.mkdir("certmix-runs") / worker


@pytest.fixture
def certmix_certify(request: pytest.FixtureRequest, certmix_runs: Path) -> Callable[..., Any]:
    """Return ``certify(model, **options)``: `certmix.certify` with the project's settings, samples kept.

    Options of the call come before those of the marker, these before the ini file.
    """
    from certmix.verification.asserting import certify_and_warn

    defaults = {"runs": certmix_runs, **_defaults(request)}
    for name in ("radius", "at_least", "on"):
        defaults.pop(name, None)
    return partial(_short, certify_and_warn, defaults)


@pytest.fixture
def certmix_assert(request: pytest.FixtureRequest, certmix_runs: Path) -> Callable[..., Any]:
    """Return `certmix.assert_certified` with the settings of the marker and the ini file, samples kept."""
    from certmix.verification.asserting import assert_certified

    def asserted(model: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        request.node.stash[_ASSERTED] = True
        return assert_certified(model, **options)

    return partial(_short, asserted, {"runs": certmix_runs, **_defaults(request)})


@pytest.fixture
def certmix_run(pytestconfig: pytest.Config) -> Callable[..., Summary]:
    """Return ``run(**changes)``: the table of the stored run that the ini file names, without sampling.

    Changes are options of `certmix.recertify`: alpha, radii, certificates.
    """
    from certmix.certification.stored import recertify

    named = pytestconfig.getini("certmix_run")
    if not named:
        raise pytest.UsageError("certmix_run is not set: name the folder of a run in the ini file")
    return partial(_short, recertify, {}, Path(pytestconfig.rootpath) / named)


def _short(function: Callable[..., Any], defaults: dict[str, Any], what: Any, **options: Any) -> Any:
    """Call; of errors that the user can mend show the message, not the way through certmix."""
    __tracebackhide__ = True
    from certmix.errors import CertmixError

    try:
        return function(what, **{**defaults, **options})
    except CertmixError as error:
        raise error.with_traceback(None) from None


def _defaults(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the settings of the ini file under those of the markers, the closest first."""
    found = _settings(request.config)
    for mark in reversed(list(request.node.iter_markers("certified"))):
        if mark.args:
            raise pytest.UsageError(f"marker certified{mark.args}: name its values, as in radius=0.5")
        found.update(mark.kwargs)
    return found


def _settings(config: pytest.Config) -> dict[str, Any]:
    """Return the settings of the ini file that are there."""
    found: dict[str, Any] = {}
    for name, (kind, _) in OPTIONS.items():
        text = config.getini(f"certmix_{name}")
        if text:
            try:
                found[name] = kind(text)
            except ValueError:
                wanted = "a number or all" if name == "inputs" else "a number"
                raise pytest.UsageError(f"certmix_{name} = {text}: write {wanted}") from None
    beside = Path(config.rootpath) / found["data"] if "data" in found else None
    if beside is not None and os.path.exists(beside):
        found["data"] = str(beside)
    return found
