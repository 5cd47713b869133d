"""The pytest plugin, run inside pytest."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch  # noqa: F401
from forged import certified, sources

import certmix.certification.stored
import certmix.pytest_plugin
import certmix.verification.asserting  # noqa: F401

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    """Let numba's late imports register, once a process: pytester forgets what a test imports."""
    numba.njit(lambda: 0)()


OTHERS = tuple(
    w for name in ("hypothesispytest", "benchmark", "nbmake", "anyio") for w in ("-p", f"no:{name}")
)
"""Other plugins take seconds to load, each time: pytester forgets what a test imports."""

INI = f"""
[pytest]
addopts = --strict-markers -W error {" ".join(OTHERS)}
certmix_data = points.npz
certmix_inputs = all
certmix_samples = 300
certmix_sigma = 0.25
certmix_alpha = 0.76
"""
NETS = """
import pytest, torch

@pytest.fixture
def net():
    net = torch.nn.Linear(2, 2)
    net.weight.data = torch.tensor([[4.0, 0.0], [-4.0, 0.0]])
    net.bias.data = torch.tensor([-2.0, 2.0])
    return net
"""


@pytest.fixture
def project(pytester, monkeypatch):
    """A project with settings, data and a fixture that gives a model."""
    inputs = np.tile(np.float32([[1.0, 0.0], [0.0, 0.0]]), (6, 1))
    np.savez(pytester.path / "points.npz", inputs=inputs, labels=np.tile([0, 1], 6), class_names=list("ab"))
    pytester.makefile(".ini", pytest=INI)
    pytester.makeconftest(NETS)
    return pytester


def test_the_marker_is_what_a_model_is_held_against(project):
    project.makepyfile("""
        import pytest

        @pytest.mark.certified(radius=0.1, at_least=0.7)
        def test_holds(certmix_assert, net):
            result = certmix_assert(net)
            assert (result.summary.sigma, result.summary.alpha, result.summary.samples) == (0.25, 0.76, 300)
            assert result.summary.inputs == 12

        @pytest.mark.certified(radius=2.0, at_least=0.7)
        def test_falls_short(certmix_assert, net):
            certmix_assert(net)
    """)
    done = project.runpytest_inprocess()
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(
        ["E *AssertionError: not certified_accuracy@2 >= 0.7: value 0.0000, lower bound 0.0000*"]
    )
    done.stdout.fnmatch_lines(["E *12 inputs are not certified at 2: *"])
    done.stdout.no_fnmatch_line("*asserting.py*raise AssertionError*")


def test_call_before_marker_before_ini(project):
    project.makepyfile("""
        import pytest
        pytestmark = pytest.mark.certified(radius=0.1, at_least=0.5, alpha=0.8)

        @pytest.mark.certified(alpha=0.9, on="point")
        class TestNear:
            @pytest.mark.certified(sigma=0.2)
            def test_a(self, certmix_assert, net):
                summary = certmix_assert(net, samples=200).summary
                assert (summary.radii, summary.alpha, summary.sigma, summary.samples) == ((0.1,), 0.9, 0.2, 200)

        def test_b(certmix_assert, net):
            assert certmix_assert(net).summary.alpha == 0.8
    """)
    project.runpytest_inprocess().assert_outcomes(passed=2)


def test_a_marked_test_that_certifies_nothing_fails(project):
    project.makepyfile("""
        import pytest

        @pytest.mark.certified(radius=0.1, at_least=0.7)
        def test_forgets(certmix_assert, net):
            pass

        @pytest.mark.certified(radius=0.1, at_least=0.7)
        def test_fails_of_itself():
            raise ValueError("of itself")
    """)
    done = project.runpytest_inprocess()
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(["*marked certified, but nothing was certified*", "*ValueError: of itself*"])


def test_samples_are_kept_in_the_cache(project, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    project.makepyfile("""
        def test_a(certmix_certify, certmix_runs, net):
            first, again = certmix_certify(net), certmix_certify(net, alpha=0.9)
            assert first.folder == again.folder
            assert first.folder.parent == certmix_runs
            assert first.summary.rows[1].certificate == "exact"
    """)
    for _ in range(2):
        project.runpytest_inprocess().assert_outcomes(passed=1)
    kept = list((project.path / ".pytest_cache" / "d" / "certmix-runs").iterdir())
    assert len(kept) == 1
    assert kept[0].name.startswith("points-Linear-sigma0.25-seed0-")


def test_other_folders_for_samples(project, monkeypatch):
    project.makepyfile("""
        def test_a(certmix_runs, request):
            print("kept in", certmix_runs)
    """)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    with_cache = project.runpytest_inprocess("-s", "-o", "certmix_runs=kept")
    with_cache.stdout.fnmatch_lines([f"*kept in {project.path / 'kept'}"])
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
    worker = project.runpytest_inprocess("-s")
    worker.stdout.fnmatch_lines(["*kept in *certmix-runs*gw1"])
    without = project.runpytest_inprocess("-s", "-p", "no:cacheprovider")
    without.stdout.fnmatch_lines(["*kept in *certmix-runs0"])


MARKED = """
    import pytest

    @pytest.mark.certified(0.5)
    def test_a(certmix_assert, net):
        certmix_assert(net)
"""


@pytest.mark.parametrize(
    "text, options, found",
    [
        ("def test_a(certmix_certify): certmix_certify(None)", ("-o", "certmix_sigma=half"),
         "*certmix_sigma = half: write a number"),
        ("def test_a(certmix_certify): certmix_certify(None)", ("-o", "certmix_inputs=some"),
         "*write a number or all"),
        (MARKED, (), "*name its values, as in radius=0.5*"),
        ("def test_a(certmix_certify, net): certmix_certify(net, alpha=0.3)", (),
         "E *ParameterError: alpha = 0.3: *"),
    ],
)  # fmt: skip
def test_errors_to_mend_are_short(project, text, options, found):
    project.makepyfile(text)
    done = project.runpytest_inprocess(*options)
    done.assert_outcomes(**({"failed": 1} if "ParameterError" in found else {"errors": 1}))
    done.stdout.fnmatch_lines([found])
    done.stdout.no_fnmatch_line("*request.py*")


def test_naming_the_plugin_registers_it_once_and_the_shipped_sample_is_the_default(pytester):
    pytester.makepyfile("""
        def test_a(pytestconfig, certmix_data):
            import certmix.pytest_plugin as plugin
            manager = pytestconfig.pluginmanager
            assert [found for _, found in manager.list_name_plugin()].count(plugin) == 1
            assert (certmix_data.name, len(certmix_data)) == ("cifar10-sample", 500)
    """)
    pytester.runpytest_inprocess(*OTHERS, "-p", "certmix").assert_outcomes(passed=1)


def test_a_stored_run_gives_tables(project):
    named = sources(project.path / "run")
    certified(project.path / "stored", named, samples=300, certificates=["exact"])
    project.makepyfile("""
        def test_run(certmix_run):
            summary = certmix_run(alpha=1.0, radii=(0.25, 0.5))
            assert (summary.alpha, summary.inputs, summary.radii) == (1.0, 10, (0.25, 0.5))
            assert len(summary.rows[0].certified_accuracy) == 2
    """)
    project.runpytest_inprocess("-o", "certmix_run=stored").assert_outcomes(passed=1)
    unset = project.runpytest_inprocess()
    unset.assert_outcomes(errors=1)
    unset.stdout.fnmatch_lines(["*certmix_run is not set: name the folder of a run*"])


def test_starting_pytest_imports_nothing_heavy(pytester):
    pytester.makepyfile("""
        import sys

        def test_a(pytestconfig):
            assert pytestconfig.pluginmanager.hasplugin("certmix")
            assert not {"torch", "numba", "scipy", "matplotlib"} & set(sys.modules)
    """)
    pytester.runpytest_subprocess("-W", "error", *OTHERS).assert_outcomes(passed=1)
