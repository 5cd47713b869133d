"""Clean against certified accuracy over alpha, and the alpha of a wanted clean accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from certmix.certification.analysis.trade_off import ALPHAS, read_mixable, trade_off
from certmix.certification.stored import recertify
from certmix.errors import CertmixError, ParameterError
from certmix.radii import CERTIFICATES
from certmix.runs.logs import HEADER, write_log
from certmix.tables.trade_off import on_front

LOGS = Path(__file__).parents[3] / "shared" / "data" / "logs"


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    """Votes of 60 inputs, the right class ahead in most."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    scores = rng.dirichlet([0.7, 0.7, 0.7], 60)
    scores[np.arange(60), labels] += rng.random(60) * 2
    votes = np.array([rng.multinomial(1000, row / row.sum()) for row in scores])
    np.savetxt(tmp_path / "counts.txt", np.column_stack([votes, labels]), fmt="%d")
    return tmp_path / "counts.txt"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    rows = [(i, 1, 1 if rng.random() < 0.8 else 2, f"{rng.random() * 1.8:.3}") for i in range(80)]
    rows += [(80 + i, 1, -1, "0.0") for i in range(20)]
    lines = [HEADER, *(f"{i}\t{y}\t{g}\t{r}\t{int(y == g)}\t1" for i, y, g, r in rows)]
    (tmp_path / "log.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path / "log.tsv"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some alphas, where it does not matter that there are 101."""
    monkeypatch.setattr("certmix.certification.analysis.trade_off.ALPHAS", (0.5, 0.76, 0.9, 1.0))


def certified(sweep, alpha: float) -> list:
    """(share, interval) of each certificate at one alpha."""
    mix = sweep.mixes[[mix.alpha for mix in sweep.mixes].index(alpha)]
    return [(share.accuracy, share.interval) for share in mix.certified]


def tabulated(source: Path | str, alpha: float, radius: float, **options) -> list:
    table = recertify(source, alpha=alpha, radii=[radius], **options)
    return [(row.certified_accuracy[0], row.interval[0]) for row in table.rows[1:]]


def test_certified_accuracies_are_those_of_recertify_and_grow_with_alpha(counts):
    found = trade_off([read_mixable(counts, sigma=0.5)], at_radius=0.2).sweeps[0]
    for alpha in (0.5, 0.76, 0.9, 1.0):
        for ours, theirs in zip(
            certified(found, alpha), tabulated(counts, alpha, 0.2, sigma=0.5), strict=True
        ):
            assert ours[0] == theirs[0] and ours[1] == pytest.approx(theirs[1], rel=1e-12)
    for k in range(len(found.mixes[0].certified)):
        line = [mix.certified[k].accuracy for mix in found.mixes]
        assert line == sorted(line)
        assert line[0] == 0.0


def brute_force(votes: np.ndarray, labels: np.ndarray, alpha: float) -> float:
    """Clean accuracy of the mix with a confident g that is always right."""
    shares = votes / votes.sum(1, keepdims=True)
    mixed = (1 - alpha) * np.eye(votes.shape[1])[labels] + alpha * shares
    return float(np.mean(mixed.argmax(1) == labels))


def test_a_perfect_confident_g_is_what_counts_alone_assume(counts):
    table = np.loadtxt(counts, dtype=int)
    one = read_mixable(counts, sigma=0.5)
    for alpha in (0.55, 0.7, 0.87, 0.95):
        assert one.clean_accuracy(alpha) == pytest.approx(brute_force(table[:, :-1], table[:, -1], alpha))
    assert one.clean_accuracy(1.0) == np.mean(table[:, :-1].argmax(1) == table[:, -1])
    worse = read_mixable(counts, sigma=0.5, standard_accuracy=0.9)
    assert worse.clean_accuracy(0.5) == pytest.approx(0.9)
    assert worse.clean_accuracy(0.7) < one.clean_accuracy(0.7)


def test_abstentions_of_a_log_are_left_to_g(log):
    one, alone = read_mixable(log, sigma=0.5), recertify(log, sigma=0.5).rows[0].certified_accuracy[0]
    assert one.clean_accuracy(0.5) == 1.0
    assert one.clean_accuracy(1.0) == pytest.approx(0.2 + alone)
    half = read_mixable(log, sigma=0.5, standard_accuracy=0.5)
    assert half.clean_accuracy(1.0) == pytest.approx(0.1 + alone)


def test_the_largest_alpha_that_is_accurate_enough(counts, log):
    one = read_mixable(counts, sigma=0.5)
    wanted = one.clean_accuracy(0.8)
    sweep = trade_off([one], match_clean_accuracy=wanted, at_radius=0.1).sweeps[0]
    match = sweep.match
    assert match.clean_accuracy == one.clean_accuracy(match.alpha) >= wanted
    assert match.alpha >= 0.8
    finer = np.arange(round(1000 * match.alpha) + 1, 1001) / 1000
    assert all(one.clean_accuracy(alpha) < wanted for alpha in finer)
    shares = [(share.accuracy, share.interval) for share in match.certified]
    assert shares == tabulated(counts, match.alpha, 0.1, sigma=0.5)
    assert sweep.curves[0].inputs == 60
    both = [read_mixable(log, sigma=1.0), one]
    found = trade_off(both, match_clean_accuracy="baseline")  # the least sigma alone
    assert found.wanted_clean_accuracy == one.clean_accuracy(1.0)
    assert found.sweeps[1].match.alpha == 1.0


@pytest.mark.usefixtures("few")
def test_what_cannot_be_had_is_said(counts, log, tmp_path):
    one = read_mixable(counts, sigma=0.5, standard_accuracy=0.9)
    with pytest.raises(ParameterError, match="no alpha gives"):
        trade_off([one], match_clean_accuracy=0.999)
    for wrong in ({"match_clean_accuracy": 1.5}, {"at_radius": -1.0}, {"certificates": ["magic"]}):
        with pytest.raises(ParameterError):
            trade_off([one], **wrong)
    with pytest.raises(ParameterError, match="standard accuracy"):
        read_mixable(counts, sigma=0.5, standard_accuracy=1.5)
    for sources in ([str(counts)], ["a", "b"], "runs", [3], []):  # counts do not know their noise level
        with pytest.raises(CertmixError):
            trade_off(sources)
    for bound in ("clopper-pearson-two-sided", "betting"):
        write_log(tmp_path / "other.tsv", [(0, 1, 1, 0.5, 1.0)], bound)
        with pytest.raises(ParameterError, match=f"{bound}.*name the folder of its run"):
            trade_off([read_mixable(tmp_path / "other.tsv", sigma=0.5)])
    assert any("q = 1 - p" in note for note in trade_off([read_mixable(log, sigma=0.5)]).notes)


def test_the_front_holds_what_nothing_beats():
    clean, shares = [0.9, 0.9, 0.8, 0.8, 0.7, 0.95], [0.1, 0.2, 0.3, 0.2, 0.3, 0.0]
    assert on_front(clean, shares) == [False, True, True, False, False, True]


@pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not here")
def test_published_logs_reach_the_papers_kind_of_figure():
    read = [
        read_mixable(LOGS / f"gaussian-resnet110-cifar10-sigma{s}-10000.tsv", sigma=float(s), as_printed=True)
        for s in ("0.50", "1.00")
    ]
    names = ["smoothing", "lipschitz-paper"]
    base, mix = trade_off(read, at_radius=0.5, certificates=names, match_clean_accuracy="baseline").sweeps
    assert base.match.alpha == 1.0
    assert 0.5 < mix.match.alpha < 1.0
    assert mix.match.clean_accuracy >= base.match.clean_accuracy
    # the paper's reading: the mix certifies fewer points at small radii, more at large ones
    assert base.curves[1].radii.max() < mix.curves[1].radii.max()
    assert len(base.curves[1].radii) > len(mix.curves[1].radii)
    assert mix.mixes[ALPHAS.index(0.76)].certified[0].accuracy == 0.1565


# runs and the command line


@pytest.mark.usefixtures("few")
def test_a_run_folder_uses_the_predictions_of_g(command, problem):
    options = (
        *problem.options,
        "--radii",
        "0,0.25",
        "--samples",
        400,
        "--inputs",
        10,
        "--output",
        "run",
        "--format",
        "json",
    )
    made = command("certify", *options)
    assert made.code == 0, made.err
    table, one = json.loads(made.out), read_mixable("run")
    assert one.standard is not None
    assert one.clean_accuracy(0.76) == table["clean_accuracy"]["mixed"]
    assert one.clean_accuracy(1.0) == table["clean_accuracy"]["robust"]
    found = trade_off([one], at_radius=0.25).sweeps[0]
    for alpha in (0.76, 0.9):
        assert certified(found, alpha) == tabulated("run", alpha, 0.25)
    assert [share for share, _ in certified(found, 0.76)] == [
        row["certified_accuracy"][1] for row in table["rows"][1:]
    ]
    assert any(mix.could_reach > tuple(c.accuracy for c in mix.certified) for mix in found.mixes)
    for k in range(0, len(found.mixes), 9):  # all alphas together, and each by itself
        assert found.mixes[k] == one.mixes((ALPHAS[k],), tuple(CERTIFICATES), 0.25)[0]
    with pytest.raises(ParameterError, match="drop --standard-accuracy"):
        read_mixable("run", standard_accuracy=0.9)
    with pytest.raises(ParameterError, match="drop --sigma"):
        read_mixable("run", sigma=0.5)


@pytest.mark.usefixtures("few")
def test_the_command(command, counts, log):
    arguments = ("trade-off", counts, log, "--sigma", "0.5,1", "--match-clean-accuracy", "baseline")
    done = command(*arguments, "--format", "json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["matches"][0]["alpha"] == 1.0
    assert Path("trade-off.png").read_bytes()[:4] == b"\x89PNG"
    assert "Plot: trade-off.png" in done.err
    for more, expected in (
        ((), "give --sigma"),
        (("--sigma", 0.5, "--match-clean-accuracy", "much"), "'much'"),
        (("--sigma", 0.5, "--plot", "plot.gif"), ".png, .svg or .pdf"),
        (("--sigma", 0.5, "--as-printed"), "--as-printed"),
        (("--sigma", 0.5, "--at-radius", "1/0"), "'1/0' is not a number: write for example"),
    ):
        done = command("trade-off", counts, *more)
        assert (done.code, done.out) == (2, "")
        assert expected in done.err.splitlines()[-1]
