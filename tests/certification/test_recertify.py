"""Tables from stored counts and published logs: figures that others printed, guarantees, contracts."""

from __future__ import annotations

import json
import re
from math import lgamma
from pathlib import Path

import numpy as np
import pytest
import torch
from planes import points
from scipy.stats import norm

import certmix
from certmix.bounds import BOUNDS, clopper_pearson
from certmix.certification.analysis.audit import audit
from certmix.certification.analysis.best import best
from certmix.certification.evaluate import bound_records
from certmix.certification.stored import NOT_CHECKED, Reading, open_run, read_stored, recertify
from certmix.errors import ParameterError
from certmix.radii import CERTIFICATES, exact_radius, smoothing_radius
from certmix.runs.logs import HEADER, lowest_printed, write_log
from certmix.tables.formats import render

LOGS = Path(__file__).parents[3] / "shared" / "data" / "logs"
needs_logs = pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not here")


def published(sigma: str) -> Path:
    return LOGS / f"gaussian-resnet110-cifar10-sigma{sigma}-10000.tsv"


def write(path: Path, *rows: tuple[int, int, int, str]) -> Path:
    """Write (idx, label, predict, radius) as a log."""
    lines = [f"{i}\t{label}\t{guess}\t{r}\t{int(label == guess)}\t0:00:14.1" for i, label, guess, r in rows]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Five rows: exactly at 0.25 and 0.5, wrong, abstaining, above."""
    rows = [(0, 1, 1, "0.25"), (1, 2, 2, "0.5"), (2, 0, 1, "0.731"), (3, 3, -1, "0.0"), (4, 4, 4, "0.9")]
    return write(tmp_path / "log.tsv", *rows)


def percent(row) -> list[float]:
    return [round(100 * share, 6) for share in row.certified_accuracy]


@needs_logs
def test_the_19_published_cells_come_out_exactly():
    lines = (LOGS / "published-best-certified-accuracy-gaussian.tsv").read_text().splitlines()[1:]
    cells = [line.split("\t") for line in lines]
    radii = [float(radius) for radius, _, _ in cells]
    tables = [
        recertify(published(s), sigma=float(s), alpha=1.0, as_printed=True, radii=radii)
        for s in ("0.12", "0.25", "0.50", "1.00")
    ]
    found = best(tables)
    assert len(cells) == 19
    for row, names in zip(found.rows[:3], found.best_source[:3], strict=True):
        assert row.certified_accuracy == tuple(float(share) for _, share, _ in cells)
        assert [name.split("sigma")[1][:4] for name in names] == [model[-4:] for _, _, model in cells]
    assert found.sigma is None
    table = json.loads(render(found, "json"))
    assert table["sigma"] is None
    assert table["best_source"][0][0].endswith("(sigma 0.12)")


GAUSSIAN = {
    "0.25": ([76.65, 61.16, 42.25, 25.06, 0, 0, 0, 0, 0], 0.4240),
    "0.50": ([65.68, 54.91, 42.79, 32.45, 21.97, 14.12, 8.26, 3.94, 0], 0.5251),
    "1.00": ([47.15, 40.94, 33.77, 27.68, 22.13, 17.22, 13.28, 9.67, 6.63], 0.5105),
}


@needs_logs
@pytest.mark.parametrize("sigma", GAUSSIAN)
def test_certified_accuracies_of_the_robust_classifiers(sigma):
    radii = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    row = recertify(published(sigma), sigma=float(sigma), as_printed=True, radii=radii).rows[0]
    expected, mean = GAUSSIAN[sigma]
    assert percent(row) == expected
    assert row.mean_certified_radius == pytest.approx(mean, abs=5e-5)


@needs_logs
def test_certified_accuracies_of_the_mix():
    radii = [0, 0.25, 0.5, 0.75, 1, 1.5, 2]
    table = recertify(published("1.00"), sigma=1, alpha=0.76, as_printed=True, radii=radii)
    rows = {row.certificate: row for row in table.rows[1:]}
    assert percent(rows["exact"]) == [36.37, 29.84, 24.25, 18.95, 14.72, 7.59, 3.20]
    assert percent(rows["smoothing"])[:4] == [36.37, 26.60, 15.65, 0]
    assert percent(rows["lipschitz-paper"])[:3] == [36.37, 20.77, 0]
    means = [rows[name].mean_certified_radius for name in ("lipschitz-paper", "smoothing", "exact")]
    assert means == pytest.approx([0.0948, 0.1514, 0.3400], abs=5e-5)
    sound = recertify(published("1.00"), sigma=1, alpha=0.76, radii=radii)
    for a, b in zip(sound.rows, table.rows, strict=True):  # rounding down only ever costs
        assert all(x <= y for x, y in zip(a.certified_accuracy, b.certified_accuracy, strict=True))
        assert a.mean_certified_radius < b.mean_certified_radius


def test_a_radius_at_the_threshold_counts_as_printed_only(log):
    printed = recertify(log, sigma=0.25, as_printed=True, radii=[0, 0.25, 0.5, 0.9])
    assert percent(printed.rows[0]) == [60, 60, 40, 20]
    assert percent(printed.rows[2]) == [60, 60, 40, 20]  # smoothing, at alpha = 1
    assert any("not rounded down" in note for note in printed.notes)
    sound = recertify(log, sigma=0.25, radii=[0, 0.25, 0.5, 0.9])
    assert percent(sound.rows[0]) == [60, 40, 20, 0]
    assert not any("not rounded down" in note for note in sound.notes)


def test_radii_of_the_mix_follow_from_the_lowest_radius(log):
    stored = read_stored(log, Reading(0.25))
    p = stored.bounds.p_lower
    scaled = np.array([lowest_printed(text) for text in ("0.25", "0.5", "0.731", "0.0", "0.9")]) / 0.25
    assert p[3] == 0.0
    assert np.all(np.delete(p, 3) >= 0.5)
    one = exact_radius(p, 1 - p, 0.25, 1.0)
    assert np.all(one <= 0.25 * scaled)
    assert one == pytest.approx(0.25 * scaled, abs=1e-11)
    table = recertify(log, sigma=0.25, alpha=0.76, radii=[0, 0.1, 0.6])
    mixed = exact_radius(p, 1 - p, 0.25, 0.76)[[0, 1, 4]]
    assert percent(table.rows[1]) == [100 * np.sum(mixed >= max(r, 1e-9)) / 5 for r in (0, 0.1, 0.6)]
    assert table.rows[1].mean_certified_radius == pytest.approx(mixed.sum() / 5)
    assert table.rows[2].mean_certified_radius == pytest.approx(
        smoothing_radius(p, 1 - p, 0.25, 0.76)[[0, 1, 4]].sum() / 5
    )


def test_probabilities_of_a_log_are_rounded_down(tmp_path):
    mpmath = pytest.importorskip("mpmath")
    texts = [f"{0.001 * k:.3}" for k in range(1, 2000, 37)]
    stored = read_stored(write(tmp_path / "log", *[(k, 1, 1, r) for k, r in enumerate(texts)]), Reading(0.25))
    with mpmath.workdps(40):
        exact = [mpmath.ncdf(mpmath.mpf(radius) / mpmath.mpf("0.25")) for radius in stored.radius.tolist()]
        assert all(mpmath.mpf(float(p)) < x for p, x in zip(stored.bounds.p_lower, exact, strict=True))
        assert all(
            x - mpmath.mpf(float(p)) < 1e-15 for p, x in zip(stored.bounds.p_lower, exact, strict=True)
        )


def test_a_log_in_a_table(tmp_path, log):
    table = recertify(log, sigma=0.25)
    assert (table.failure_probability, table.bound, table.goal, table.samples) == (None, None, None, None)
    assert (table.inputs, table.abstained, table.alpha) == (5, 1, 1.0)
    clean = table.clean_accuracy
    assert (clean.standard, clean.robust, clean.mixed) == (None, 3 / 5, None)
    assert any("1 abstentions count as wrong" in note for note in table.details)
    (tmp_path / "running.tsv").write_text(log.read_text().replace("\t1\t0:00", "\t7\t0:00"))
    assert recertify(tmp_path / "running.tsv", sigma=0.25).rows == table.rows  # correct is not read
    huge = write(tmp_path / "huge", (0, 1, 1, "9.0"))
    for as_printed in (True, False):
        table = recertify(huge, sigma=0.25, alpha=0.76, as_printed=as_printed, radii=[0, 8])
        assert all(np.isfinite(row.mean_certified_radius) for row in table.rows)
    gaps = write(tmp_path / "gaps", *[(100 * i, 1, 1, "0.3") for i in range(427)])
    table = recertify(gaps, sigma=0.25)
    assert (table.inputs, table.planned_inputs, table.complete) == (427, 500, False)
    assert any(note.startswith("Rows: 427 of 500") for note in table.details)
    assert recertify(gaps, sigma=0.25, rows=427).complete
    table = recertify(write(tmp_path / "empty"), sigma=0.25)
    assert (table.inputs, table.rows, table.complete) == (0, (), False)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"bound": "clopper-pearson"}, "--bound"), ({"failure_probability": 0.01}, "--failure-probability"),
        ({"assume_selected": True}, "--assume-selected"), ({"alpha": 0.3}, "1/2 <= alpha"),
        ({"radii": [0.5, 0.25]}, "increase"), ({"certificates": ["magic"]}, "magic"), ({"rows": 2}, "--rows"),
        ({"sigma": None}, "give --sigma"), ({"sigma": 0.0}, "positive"),
    ],
)  # fmt: skip
def test_what_a_log_does_not_allow(tmp_path, log, options, expected):
    named = tmp_path / "sigma0.25-sigma_0.25.tsv"  # sigma is never guessed
    named.write_text(log.read_text())
    with pytest.raises(ParameterError, match=expected) as error:
        recertify(named, **{"sigma": 0.25, **options})
    assert "\n" not in str(error.value)


RUN = {
    "format_version": 2,
    "identity": {},
    "request": {
        "sigma": 0.5, "alpha": 0.76, "inputs": 3, "samples": 1000, "goal": "fixed", "failure_probability": 0.01,
        "bound": "clopper-pearson", "certificates": ["exact"], "radii": [0.0, 0.25],
    },
    "data": {"inputs": 12, "class_names": ["a", "b", "c"]},
}  # fmt: skip


@pytest.fixture
def own_log(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(RUN))
    write_log(
        tmp_path / "run" / "records.tsv",
        [(1, 0, 0, 0.25, 1.0), (5, 1, 1, 0.5, 1.0), (9, 1, -1, 0.0, 1.0)],
        "clopper-pearson",
    )
    return tmp_path / "run" / "records.tsv"


def test_nothing_is_subtracted_from_an_own_log_which_knows_how_it_was_made(own_log):
    table = recertify(own_log, radii=[0, 0.25, 0.5])
    assert percent(table.rows[0]) == pytest.approx([200 / 3, 200 / 3, 100 / 3], abs=1e-5)
    assert (table.sigma, table.failure_probability, table.bound) == (0.5, 0.01, "clopper-pearson")
    assert (table.inputs, table.planned_inputs, table.complete) == (3, 3, True)
    assert recertify(own_log, sigma=0.5, failure_probability=0.01, bound="clopper-pearson").sigma == 0.5
    for options in ({"sigma": 0.25}, {"failure_probability": 0.001}, {"bound": "clopper-pearson-two-sided"}):
        with pytest.raises(ParameterError):
            recertify(own_log, **options)
    other = write(own_log.with_name("other.tsv"), (0, 1, 1, "0.25"))
    with pytest.raises(ParameterError, match="give --sigma"):  # beside a run, and not its own
        recertify(other)
    write(own_log, (0, 1, 1, "0.25"))
    with pytest.raises(ParameterError, match="give --sigma"):
        recertify(own_log)


def all_votes(samples: int) -> np.ndarray:
    """Every way in which samples can fall on three classes."""
    return np.array([(a, b, samples - a - b) for a in range(samples + 1) for b in range(samples + 1 - a)])


def chances(votes: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """Multinomial probability of each row."""
    ways = [lgamma(row.sum() + 1) - sum(lgamma(v + 1) for v in row) for row in votes]
    return np.exp(ways) * np.prod(np.asarray(shares) ** votes, axis=1)


def worst_failure(path: Path, votes: np.ndarray, **options) -> float:
    """Largest probability, over all classifiers on a grid, of bounds that are issued and wrong."""
    (path).write_text("\n".join(" ".join(map(str, [*row, 0])) for row in votes))
    stored = read_stored(path, Reading(1.0, 0.1, **options))
    p, q, chosen = stored.bounds.p_lower, stored.bounds.q_upper, stored.selected
    worst = 0.0
    for a in range(21):
        for b in range(21 - a):
            truth = np.array([a, b, 20 - a - b]) / 20
            others = np.array([np.delete(truth, k).max() for k in range(3)])
            wrong = (p > q) & ((p > truth[chosen]) | (q < others[chosen]))
            worst = max(worst, float(chances(votes, tuple(truth))[wrong].sum()))
    return worst


@pytest.mark.parametrize("bound", ["clopper-pearson", "clopper-pearson-two-sided"])
def test_class_counts_keep_their_failure_probability_though_they_choose_the_class(tmp_path, bound):
    votes = all_votes(14)
    assert 0 < worst_failure(tmp_path / "counts", votes, bound=bound) <= 0.1
    if bound == "clopper-pearson":  # without the allowance they would not
        assert worst_failure(tmp_path / "counts", votes, assume_selected=True) > 0.1


def test_class_counts_spend_half_on_the_choice(tmp_path):
    (tmp_path / "counts").write_text("900 80 20 0\n10 980 10 1\n400 350 250 0\n1000 0 0 1\n")
    table = recertify(tmp_path / "counts", sigma=0.5, alpha=0.76, radii=[0, 0.25])
    p = clopper_pearson.lower_bound(np.array([900, 980]), 1000, 0.0005)
    expected = exact_radius(p, 1 - p, 0.5, 0.76)
    assert table.rows[1].mean_certified_radius == pytest.approx(expected.sum() / 4)
    assert (table.samples, table.failure_probability, table.abstained) == (1000, 0.001, 1)
    assert table.clean_accuracy.robust == 0.75
    assert any("0.001 / 2" in note for note in table.notes)
    assumed = recertify(tmp_path / "counts", sigma=0.5, alpha=0.76, radii=[0, 0.25], assume_selected=True)
    assert assumed.rows[1].mean_certified_radius > table.rows[1].mean_certified_radius
    assert any("holds only if" in note for note in assumed.notes)
    looser = recertify(tmp_path / "counts", sigma=0.5, alpha=0.76, failure_probability=0.1)
    assert looser.rows[1].mean_certified_radius > assumed.rows[1].mean_certified_radius
    with pytest.raises(ParameterError, match="--as-printed"):
        recertify(tmp_path / "counts", sigma=0.5, as_printed=True)


@needs_logs
def test_published_counts_agree_with_the_published_log_of_the_same_inputs():
    counts = recertify(LOGS / "class-counts-resnet110-cifar10-sigma0.25-500x100000.txt", sigma=0.25)
    logged = recertify(LOGS / "gaussian-resnet110-cifar10-sigma0.25-500.tsv", sigma=0.25)
    assert counts.inputs == logged.inputs == logged.planned_inputs == 500
    for a, b in zip(counts.rows[0].certified_accuracy, logged.rows[0].certified_accuracy, strict=True):
        assert abs(a - b) <= 0.012


def test_best_takes_the_best_cell_and_says_whose_it_is(tmp_path):
    low = recertify(write(tmp_path / "a", (0, 1, 1, "0.3"), (1, 1, 1, "0.3")), sigma=0.12, radii=[0, 0.5])
    high = recertify(write(tmp_path / "b", (0, 1, 1, "0.9"), (1, 1, 0, "0.9")), sigma=0.5, radii=[0, 0.5])
    found = best([low, high])
    assert found.rows[0].certified_accuracy == (1.0, 0.5)
    assert found.rows[0].interval == (low.rows[0].interval[0], high.rows[0].interval[1])
    assert [Path(name).name[0] for name in found.best_source[0]] == ["a", "b"]
    assert any("no one classifier" in note for note in found.notes)
    with pytest.raises(ParameterError, match="differ in alpha"):
        best([low, recertify(tmp_path / "b", sigma=0.5, radii=[0])])
    with pytest.raises(ParameterError, match="none of the sources"):
        best([recertify(write(tmp_path / "c"), sigma=0.5)])


class Bands(torch.nn.Module):
    """Ten classes by bands of the first input: .6 and nine times .0444 at 0 under sigma = 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        edges = torch.tensor(norm.ppf(0.6 + 0.4 / 9 * np.arange(9)), dtype=torch.float32)
        return 10.0 * torch.nn.functional.one_hot(torch.bucketize(x[:, 0].contiguous(), edges), 10).float()


SHORT = ("clopper-pearson", "clopper-pearson-two-sided", "betting", "layers")
BY_SCORES = [
    pytest.param(bound.scores, name, marks=[pytest.mark.long] * (name not in SHORT))
    for name, bound in BOUNDS.items()
]


@pytest.mark.parametrize("scores, bound", BY_SCORES)
def test_no_log_says_more_than_the_run_it_comes_from(tmp_path, scores, bound):
    """Whatever the bound: at each alpha the log is refused, naming its run, or no figure exceeds the folder's."""
    run, copy = tmp_path / "run", tmp_path / "copy.tsv"
    certmix.certify(
        sigma=1.0, alpha=1.0, data=points(np.zeros((4, 2)), [0] * 4, 10), standard=None, robust=Bands(), inputs="all",
        goal="fixed", samples=3000, scores=scores, bound=bound, certificates=("exact",), output=run,
    )  # fmt: skip
    copy.write_text((run / "records.tsv").read_text())
    for alpha in (0.51, 0.6, 0.63, 0.76, 1.0):
        folder = recertify(run, alpha=alpha, radii=[0, 0.1])
        for log, said in ((run / "records.tsv", f"the run folder {run}"), (copy, "the folder of its run")):
            if bound != "clopper-pearson" and alpha < 1:
                with pytest.raises(ParameterError, match=f"{bound}.*name {re.escape(said)}"):
                    recertify(log, alpha=alpha, sigma=1.0)
                continue
            logged = recertify(log, sigma=1.0, alpha=alpha, radii=[0, 0.1], certificates=["exact"])
            for told, own in zip(logged.rows, folder.rows, strict=True):
                assert told.certified_accuracy <= own.certified_accuracy
                assert (
                    own.mean_certified_radius - 2e-6 < told.mean_certified_radius <= own.mean_certified_radius
                )
    assert {row.certificate for row in recertify(copy, sigma=1.0).rows} <= set(CERTIFICATES)


@pytest.mark.parametrize("bound", ["clopper-pearson-two-sided", "beta-binomial", "betting", "layers"])
def test_a_log_of_another_bound_has_its_own_radii_only(tmp_path, bound):
    path = tmp_path / "log.tsv"
    write_log(path, [(0, 1, 1, 0.5, 1.0), (1, 2, 2, 0.1, 1.0)], bound)
    for certificate in CERTIFICATES:
        for alpha in (0.76, 1.0):
            if alpha == 1.0 and certificate in ("exact", "smoothing"):
                table = recertify(path, sigma=0.5, certificates=[certificate])
                assert (table.bound, percent(table.rows[1])) == (bound, percent(table.rows[0]))
                continue
            with pytest.raises(ParameterError, match="name the folder of its run"):
                recertify(path, sigma=0.5, alpha=alpha, certificates=[certificate])
    rows = [row.certificate for row in recertify(path, sigma=0.5).rows]
    assert rows == ["exact", "exact", "smoothing"]


def test_a_log_that_names_no_bound_is_taken_to_be_one_sided_and_the_table_says_so(log, own_log, tmp_path):
    def assumed(table) -> bool:
        return any("q = 1 - p" in note for note in table.notes)

    assert assumed(recertify(log, sigma=0.25, alpha=0.76))
    assert not assumed(recertify(own_log, alpha=0.76))
    write_log(tmp_path / "named.tsv", [(0, 1, 1, 0.5, 1.0)], "clopper-pearson")
    named = recertify(tmp_path / "named.tsv", sigma=0.5, alpha=0.76)
    assert not assumed(named)
    both = best([named, recertify(log, sigma=0.25, alpha=0.76, radii=named.radii)])
    assert next(note for note in both.notes if "q = 1 - p" in note).startswith(str(log))


def test_a_noise_level_in_a_column_is_the_logs_own(tmp_path, log):
    rows = log.read_text().splitlines()
    named = tmp_path / "named.tsv"
    named.write_text("\n".join([f"{rows[0]}\tsigma", *(f"{row}\t0.25" for row in rows[1:])]) + "\n")
    assert recertify(named).rows == recertify(log, sigma=0.25).rows
    with pytest.raises(ParameterError, match="drop --sigma"):
        recertify(named, sigma=0.5)
    assert audit(named).facts["sigma"] == 0.25
    with pytest.raises(ParameterError, match="drop --sigma"):
        audit(named, sigma=0.5)


# the command line


def without_models(text: str) -> dict:
    """A table without the note, which must be there, that models were not checked."""
    table = json.loads(text)
    table["details"].remove(NOT_CHECKED)
    return table


def test_a_run_folder_gives_the_table_of_its_run_again(command, problem):
    arguments = (*problem.options, "--samples", 400, "--inputs", 8, "--output", "run", "--format", "json")
    made = command("certify", *arguments)
    assert made.code == 0, made.err
    again = command("recertify", "run", "--format", "json")
    assert again.code == 0, again.err
    assert without_models(again.out) == json.loads(made.out)
    changed = command(
        "recertify", "run", "--alpha", 0.95, "--certificate", "smoothing", "--radii", "0,0.1",
        "--failure-probability", 1e-6, "--format", "json",
    )  # fmt: skip
    table = json.loads(changed.out)  # a stricter request keeps every input
    assert (table["alpha"], table["radii"], table["failure_probability"]) == (0.95, [0.0, 0.1], 1e-6)
    assert [row["certificate"] for row in table["rows"]] == ["exact", "smoothing"]
    assert (table["inputs"], table["planned_inputs"], table["complete"]) == (8, 8, True)
    assert any("failure probability 0.001" in note for note in table["notes"])
    waiting, run = [], open_run(Path("run"))
    for alpha in (0.6, 0.76, 1.0):  # as if all looks were walked through again
        other = run.request.replace(alpha=alpha, radii=(0.1, 0.4))
        seen = bound_records(run.records, other, every_look=True)
        waiting.append(run.bounded_by(other).would_go_on(other))
        assert waiting[-1] == seen.would_go_on(other) == seen.waiting.sum()
    assert max(waiting) > 0
    assert "drop --sigma" in command("recertify", "run", "--sigma", 0.5).err
    assert "--as-printed" in command("recertify", "run", "--as-printed").err


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (("log.tsv",), "give --sigma"), (("log.tsv", "log.tsv", "--sigma", "1"), "add --best"),
        (("log.tsv", "log.tsv", "log.tsv", "--best", "--sigma", "1,2"), "noise levels"),
        (("log.tsv", "--sigma", "x"), "not a list of numbers"), (("nothing", "--sigma", "1"), "No such file"),
    ],
)  # fmt: skip
def test_errors_are_one_line(command, log, arguments, expected):
    done = command("recertify", *arguments)
    assert (done.code, done.out) == (2, "")
    assert len([line for line in done.err.splitlines() if line.startswith("Error: ")]) == 1
    assert expected in done.err


@pytest.fixture
def far_log(tmp_path: Path) -> Path:
    """A log of sigma = 0.5 or more: its largest radius is 1.96."""
    return write(tmp_path / "far.tsv", (0, 1, 1, "1.96"), (1, 1, -1, "0.0"), (2, 1, 1, "0.9"))


def test_a_noise_level_that_the_radii_cannot_have_is_doubted(command, tmp_path, far_log):
    doubted = recertify(far_log, sigma=0.25, alpha=0.76).notes[0]
    assert doubted.startswith("is sigma = 0.25 right? The largest radius of the log would be 7.84 sigma")
    assert not any("right?" in note for note in recertify(far_log, sigma=0.5, alpha=0.76).notes)
    endless = write(tmp_path / "endless.tsv", (0, 1, 1, "1E308"), (1, 1, 1, "0.9"))
    assert "The largest radius of the log would be inf sigma" in recertify(endless, sigma=0.5).notes[0]
    done = command("recertify", far_log, "--sigma", 0.25, "--format", "csv")
    assert (done.code, done.err) == (0, f"Warning: {doubted}\n")
    assert command("recertify", far_log, "--sigma", 0.5).err == ""


def test_the_best_of_several_doubts_each_noise_level_first(command, tmp_path, far_log):
    near = write(tmp_path / "near.tsv", (0, 1, 1, "0.9"), (1, 1, 1, "0.3"), (2, 1, 1, "0.2"))
    for sigmas, doubted in (
        ("1,0.25", [far_log]),
        ("0.25", [far_log]),
        ("0.1,0.25", [near, far_log]),
        ("0.25,0.5", []),
    ):
        done = command("recertify", near, far_log, "--sigma", sigmas, "--best", "--format", "json")
        notes = json.loads(done.out)["notes"]
        assert [note.partition(": is sigma")[0] for note in notes if "right?" in note] == list(
            map(str, doubted)
        )
        assert done.err.splitlines() == [f"Warning: {note}" for note in notes[: len(doubted)]]


@pytest.mark.parametrize(
    ("study", "named", "remedy"),
    [
        ("certify-margin", "certmix certify --certificate margin", "repeat it for another --alpha"),
        ("nuts-certified", "certmix nuts fit --certified", "name a run of certmix certify"),
        ("mix-sweep", "certmix mix-sweep", "name a run of certmix certify"),
    ],
)
def test_a_run_of_another_kind_is_named_by_a_command_that_exists(command, tmp_path, study, named, remedy):
    (tmp_path / "run.json").write_text(json.dumps({"format_version": 2, "identity": {"study": study}}))
    assert command(*named.split()[1:], "--help").code == 0
    for words in (("recertify",), ("audit",), ("trade-off",), ("plan", "--like")):
        done = command(*words, tmp_path)
        assert (done.code, done.out) == (2, "")
        assert re.search(rf" is a run of {re.escape(named)}[:,] ", done.err)
        assert remedy in done.err or words[0] == "plan"
