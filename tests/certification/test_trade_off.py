"""Clean against certified accuracy over alpha, the alpha of a wanted clean accuracy, tables and picture."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from certmix_cli.stored import trade_off as trade_off_command
from click.testing import CliRunner

from certmix.certification.stored import recertify
from certmix.certification.trade_off import ALPHAS, Mixable, read_mixable, trade_off
from certmix.errors import CertmixError, ParameterError
from certmix.runs.logs import HEADER, write_log
from certmix.tables import FORMATS, render
from certmix.tables.curves import plot_trade_off, trade_off_image
from certmix.tables.trade_off import on_front

LOGS = Path(__file__).parents[3] / "shared" / "data" / "logs"
needs_logs = pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not here")
G = "gaussian-resnet110-cifar10-sigma"


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    """Votes of 60 images, the right class ahead in most."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    scores = rng.dirichlet([0.7, 0.7, 0.7], 60)
    scores[np.arange(60), labels] += rng.random(60) * 2
    votes = np.array([rng.multinomial(1000, row / row.sum()) for row in scores])
    path = tmp_path / "counts.txt"
    path.write_text(
        "\n".join(" ".join(map(str, [*row, label])) for row, label in zip(votes, labels, strict=True))
    )
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    rows = [(i, 1, 1 if rng.random() < 0.8 else 2, f"{rng.random() * 1.8:.3}") for i in range(80)]
    rows += [(80 + i, 1, -1, "0.0") for i in range(20)]
    path = tmp_path / "log.tsv"
    path.write_text(
        "\n".join([HEADER, *(f"{i}\t{y}\t{g}\t{r}\t{int(y == g)}\t1" for i, y, g, r in rows)]) + "\n"
    )
    return path


def test_certified_accuracies_are_those_of_recertify(counts):
    found = trade_off([read_mixable(counts, sigma=0.5)], at_radius=0.2).sweeps[0]
    for alpha in (0.5, 0.76, 0.9, 1.0):
        table = recertify(counts, sigma=0.5, alpha=alpha, radii=[0.2])
        k = found.alphas.index(alpha)
        assert [line[k] for line in found.certified_accuracy] == [
            r.certified_accuracy[0] for r in table.rows[1:]
        ]
        assert [line[k] for line in found.interval] == [row.interval[0] for row in table.rows[1:]]


def test_more_weight_on_the_robust_classifier_never_certifies_less(counts):
    for line in trade_off([read_mixable(counts, sigma=0.5)], at_radius=0.1).sweeps[0].certified_accuracy:
        assert list(line) == sorted(line)
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
    one = read_mixable(log, sigma=0.5)
    assert one.clean_accuracy(0.5) == 1.0
    assert one.clean_accuracy(1.0) == pytest.approx(
        0.2 + recertify(log, sigma=0.5).rows[0].certified_accuracy[0]
    )
    assert read_mixable(log, sigma=0.5, standard_accuracy=0.5).clean_accuracy(1.0) == pytest.approx(
        one.clean_accuracy(1.0) - 0.1
    )


def test_the_largest_alpha_that_is_accurate_enough(counts):
    one = read_mixable(counts, sigma=0.5)
    wanted = one.clean_accuracy(0.8)
    (match,) = trade_off([one], match_clean_accuracy=wanted, at_radius=0.1).matches
    assert match.clean_accuracy == one.clean_accuracy(match.alpha) >= wanted
    assert match.alpha >= 0.8
    finer = np.arange(round(1000 * match.alpha) + 1, 1001) / 1000
    assert all(one.clean_accuracy(alpha) < wanted for alpha in finer)
    assert (
        match.certified_accuracy[0]
        == recertify(counts, sigma=0.5, alpha=match.alpha, radii=[0.1]).rows[1].certified_accuracy[0]
    )
    assert match.curves[0].images == 60


def test_the_baseline_is_the_least_sigma_alone(counts, log):
    both = [read_mixable(log, sigma=1.0), read_mixable(counts, sigma=0.5)]
    found = trade_off(both, match_clean_accuracy="baseline")
    assert found.wanted_clean_accuracy == both[1].clean_accuracy(1.0)
    assert found.matches[1].alpha == 1.0


def test_what_cannot_be_had_is_said(counts):
    one = read_mixable(counts, sigma=0.5, standard_accuracy=0.9)
    with pytest.raises(ParameterError, match="no alpha gives"):
        trade_off([one], match_clean_accuracy=0.999)
    for wrong in ({"match_clean_accuracy": 1.5}, {"at_radius": -1.0}, {"certificates": ["magic"]}):
        with pytest.raises(ParameterError):
            trade_off([one], **wrong)
    with pytest.raises(ParameterError, match="standard accuracy"):
        read_mixable(counts, sigma=0.5, standard_accuracy=1.5)


@pytest.mark.parametrize("bound", ["clopper-pearson-two-sided", "betting"])
def test_a_log_whose_bound_is_not_one_sided_is_refused(tmp_path, bound):
    write_log(tmp_path / "log.tsv", [(0, 1, 1, 0.5, 1.0)], bound)
    with pytest.raises(ParameterError, match=f"{bound}.*name the folder of its run"):
        trade_off([read_mixable(tmp_path / "log.tsv", sigma=0.5)])


def test_a_log_that_names_no_bound_is_said_to_be_taken_as_one_sided(log):
    assert any("q = 1 - p" in note for note in trade_off([read_mixable(log, sigma=0.5)]).notes)


def test_paths_are_read_where_the_source_knows_its_noise_level(log, counts, tmp_path):
    """A log with a column for sigma; what does not know it is refused in one line, as is anything else."""
    rows = log.read_text().splitlines()
    named = tmp_path / "named.tsv"
    named.write_text("\n".join([f"{rows[0]}\tsigma", *(f"{row}\t0.5" for row in rows[1:])]) + "\n")
    expected = trade_off([read_mixable(log, sigma=0.5)]).sweeps[0].certified_accuracy
    assert trade_off([str(named)]).sweeps[0].certified_accuracy == expected
    assert trade_off(named).sweeps[0].certified_accuracy == expected
    for sources in ([str(counts)], ["a", "b"], "runs", [3], []):
        with pytest.raises(CertmixError):
            trade_off(sources)


def test_the_front_holds_what_nothing_beats():
    clean, certified = [0.9, 0.9, 0.8, 0.8, 0.7, 0.95], [0.1, 0.2, 0.3, 0.2, 0.3, 0.0]
    assert on_front(clean, certified) == [False, True, True, False, False, True]


@pytest.mark.parametrize("format_", FORMATS)
def test_tables(counts, log, format_):
    read = [read_mixable(counts, sigma=0.5), read_mixable(log, sigma=1.0)]
    found = trade_off(read, match_clean_accuracy=0.8, certificates=["exact", "lipschitz"])
    text = render(found.table, format_)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert "None" not in text
    if format_ == "json":
        table = json.loads(text, parse_constant=lambda name: pytest.fail(name))
        assert [source["sigma"] for source in table["sources"]] == [0.5, 1.0]
        assert len(table["sources"][0]["alphas"]) == len(ALPHAS)
        assert [match["alpha"] for match in table["matches"]] == [match.alpha for match in found.matches]
    elif format_ == "csv":
        lines = list(csv.DictReader(io.StringIO(text)))
        assert len(lines) == 2 * 2 * (len(ALPHAS) + 1)
        assert sum(line["matched"] == "true" for line in lines) == 4
    else:
        assert text.count("0.55") >= 2
        assert f"{found.matches[0].alpha:g} " in text


def test_an_unknown_format_or_plot(counts, tmp_path):
    found = trade_off([read_mixable(counts, sigma=0.5)])
    with pytest.raises(ParameterError, match="unknown"):
        render(found.table, "xml")
    with pytest.raises(ParameterError, match=r"\.png or \.svg"):
        plot_trade_off(found, tmp_path / "plot.gif")


def test_the_picture(counts, log, tmp_path):
    read = [read_mixable(counts, sigma=0.5), read_mixable(log, sigma=1.0)]
    found = trade_off(read, match_clean_accuracy="baseline")
    plot_trade_off(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    drawn = trade_off_image(found, "svg").decode()
    assert drawn == trade_off_image(found, "svg").decode()
    sigma, alpha = "\u03c3", "\u03b1"
    for wanted in (f"{sigma} = 0.5, {alpha} = 1", f"{sigma} = 1, {alpha} = {found.matches[1].alpha:g}"):
        assert wanted in drawn
    assert "smoothing (Thm 3.7)" in drawn
    alone = trade_off_image(trade_off(read[:1]), "svg").decode()
    assert "clean accuracy of the mix" in alone
    assert "units of the input" not in alone


@needs_logs
def test_published_logs_reach_the_papers_kind_of_figure():
    read = [
        read_mixable(LOGS / f"{G}{s}-10000.tsv", sigma=float(s), as_printed=True) for s in ("0.50", "1.00")
    ]
    found = trade_off(
        read, at_radius=0.5, certificates=["smoothing", "lipschitz-paper"], match_clean_accuracy="baseline"
    )
    base, mix = found.matches
    assert base.alpha == 1.0
    assert 0.5 < mix.alpha < 1.0
    assert mix.clean_accuracy >= base.clean_accuracy
    # the paper's reading: the mix certifies fewer points at small radii, more at large ones
    assert base.curves[1].radii.max() < mix.curves[1].radii.max()
    assert len(base.curves[1].radii) > len(mix.curves[1].radii)
    k = ALPHAS.index(0.76)
    assert found.sweeps[1].certified_accuracy[0][k] == 0.1565


# runs and the command line


def test_a_run_folder_uses_the_predictions_of_g(command, problem):
    options = (*problem.options, "--samples", 400, "--images", 10, "--output", "run", "--format", "json")
    made = command("certify", *options)
    assert made.code == 0, made.err
    table, one = json.loads(made.out), read_mixable("run")
    assert isinstance(one, Mixable)
    assert one.standard is not None
    assert one.clean_accuracy(0.76) == table["clean_accuracy"]["mixed"]
    assert one.clean_accuracy(1.0) == table["clean_accuracy"]["robust"]
    found = trade_off([one], at_radius=0.25)
    expected = [row["certified_accuracy"][1] for row in table["rows"][1:]]
    for alpha in (0.76, 0.9):
        k = ALPHAS.index(alpha)
        again = recertify("run", alpha=alpha, radii=[0.25])
        assert [line[k] for line in found.sweeps[0].certified_accuracy] == [
            row.certified_accuracy[0] for row in again.rows[1:]
        ]
        assert alpha == 0.9 or [row.certified_accuracy[0] for row in again.rows[1:]] == expected
    with pytest.raises(ParameterError, match="drop --standard-accuracy"):
        read_mixable("run", standard_accuracy=0.9)
    with pytest.raises(ParameterError, match="drop --sigma"):
        read_mixable("run", sigma=0.5)


def test_the_command(counts, log, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [
        str(counts),
        str(log),
        "--sigma",
        "0.5,1",
        "--match-clean-accuracy",
        "baseline",
        "--format",
        "json",
    ]
    done = CliRunner().invoke(trade_off_command, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["matches"][0]["alpha"] == 1.0
    assert (tmp_path / "trade-off.png").exists()
    assert "Plot: trade-off.png" in done.stderr
    again = CliRunner().invoke(trade_off_command, [*arguments, "--plot", "none"])
    assert again.stderr == ""
    wrong = CliRunner().invoke(
        trade_off_command, [str(counts), "--sigma", "1", "--match-clean-accuracy", "much"]
    )
    assert isinstance(wrong.exception, ParameterError)
    assert "'much'" in str(wrong.exception)


def test_errors_are_one_line(command, counts):
    fine = command("trade-off", counts, "--sigma", 0.5, "--plot", "none")
    assert fine.code == 0, fine.err
    for arguments, expected in (
        ((), "give --sigma"),
        (("--sigma", 0.5, "--match-clean-accuracy", "much"), "'much'"),
        (("--sigma", 0.5, "--plot", "plot.gif"), ".png or .svg"),
        (("--sigma", 0.5, "--as-printed"), "--as-printed"),
    ):
        done = command("trade-off", counts, *arguments)
        assert (done.code, done.out) == (2, "")
        assert len(done.err.splitlines()) == 1
        assert expected in done.err


@pytest.mark.parametrize("format_", FORMATS)
def test_a_doubtful_noise_level_comes_first_and_on_stderr(command, log, format_):
    doubted = command("trade-off", log, "--sigma", 0.1, "--plot", "none", "--format", format_)
    assert doubted.code == 0
    (line,) = doubted.err.splitlines()
    assert line.startswith("Warning: is sigma = 0.1 right?")
    if format_ == "json":
        assert json.loads(doubted.out)["notes"][0] == line.removeprefix("Warning: ")
    both = command("trade-off", log, log, "--sigma", "0.1,0.5", "--plot", "none", "--format", "json")
    assert json.loads(both.out)["notes"][0].endswith(line.removeprefix("Warning: "))
    fine = command("trade-off", log, "--sigma", 0.5, "--plot", "none", "--format", format_)
    assert fine.err == ""


def test_a_radius_may_be_a_fraction(command, log):
    tables = [
        command("trade-off", log, "--sigma", 0.5, "--plot", "none", "--format", "json", "--at-radius", text)
        for text in ("8/255", 8 / 255)
    ]
    assert json.loads(tables[0].out)["at_radius"] == 8 / 255
    assert tables[0].out == tables[1].out
    wrong = command("trade-off", log, "--sigma", 0.5, "--at-radius", "1/0")
    assert (wrong.code, wrong.out) == (2, "")
    assert "'1/0' is not a number: write for example" in wrong.err
