"""Every option of every command, in every mode, has an effect or is refused.

A mode is a way to use a command.  Below is declared which options mean nothing in it: they must be
refused by name.  With every other option the command must do something else than without: what it asks
of the library, prints and writes is observed, the library's long work being left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import click
import numpy as np
import pytest
from certmix_cli.main import COMMANDS, cli
from certmix_cli.options import options as declared
from PIL import Image

from certmix.runs.settings import Settings, fields, written

STANDARD = {"standard", "standard_weights", "standard_normalize", "standard_outputs", "standard_files"}
OF_MIX = STANDARD | {"standard_temperature"}
PLAIN = {"bound_method", "arithmetic", "max_radius", "lipschitz_constant", "constant_of"}
CASES_OF = {"scale", "patch"}
OF_CLAIM = {"at_radius", "at_least", "population"}
RAY = {"gpus_per_worker", "ray_address"}
SAMPLING = {
    "samples", "selection_samples", "scores", "score_temperature", "gate", "tuned", "goal", "settle", "relative_precision",
    "failure_probability", "all_at_once", "bound", "seed", "precision", "compiled", "shard", "feature_scale",
}  # fmt: skip
OTHERS = {"data": "other.npz", "standard": "other.py:g", "robust": "other.py:h"}
OF_FILES = {"as_printed", "assume_selected"}
OF_RUNS = {"gate", "standard_temperature", "tuned"}
SEARCH = {
    "inputs", "alpha", "certificate", "gate", "steps", "copies", "restarts", "samples", "error_rate", "output",
}  # fmt: skip
CERTIFIED = {
    "at_radius", "sigma", "noisy_samples", "clean_accuracy_floor", "certify_inputs", "samples",
    "selection_samples", "failure_probability", "bound", "denoiser", "feature_scale",
}  # fmt: skip
UNCERTIFIED = {
    "beta", "quantile", "rival", "conditional", "standard_temperature", "r_d", "gradient_free", "full_strength",
    "logits", "norm", "eps", "steps", "restarts", "published",
}  # fmt: skip
NOT_OF_LOGITS = CERTIFIED | STANDARD | {
    "norm", "eps", "steps", "restarts", "inputs", "seed", "device", "precision", "batch_size", "data", "split",
    "input_range", "resize", "crop", "label_column", "robust", "robust_weights", "robust_normalize",
    "robust_outputs", "robust_files", "output",
    "fresh", "certified", "published", "r_d", "gradient_free", "full_strength", "copy_weights", "run_code",
}  # fmt: skip
RECIPES = {
    "standard": {
        "noise_sigma",
        "consistency",
        "norm",
        "eps",
        "sharpen_alpha",
        "classifier",
        "scale",
        "noise",
    },
    "gaussian": {"norm", "eps", "sharpen_alpha", "classifier", "scale"},
    "gaussian --noise ablation --scale 3": {"noise_sigma", "norm", "eps", "sharpen_alpha", "classifier"},
    "splitting": {"noise_sigma", "norm", "eps", "sharpen_alpha", "classifier", "noise"},
    "bands": {"noise_sigma", "norm", "eps", "sharpen_alpha", "classifier", "noise"},
    "adversarial": {"noise_sigma", "consistency", "sharpen_alpha", "classifier", "scale", "noise"},
    "interval": {"noise_sigma", "consistency", "norm", "classifier", "scale", "noise"},
    "denoiser": {"consistency", "norm", "eps", "sharpen_alpha", "scale", "noise"},
}


@dataclass(frozen=True)
class Mode:
    """A way to use a command: what is written, what means nothing then, and values other than those below.

    A value that `values` gives may be refused, in its own right.  `only` leaves the other options to other
    modes; `refused` modes are refused without a further option.
    """

    command: str
    words: str = ""
    idle: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
    only: set[str] = field(default_factory=set)
    refused: bool = False


SMOOTH, EXACT = "--sigma 0.25 --alpha 0.76", "--alpha 0.76 --certificate"
MODES = [
    Mode(
        "certify", SMOOTH, PLAIN | RAY | CASES_OF | OF_CLAIM | {"score_temperature", "relative_precision"},
        {"norm": "linf", "noise": "bands"},
    ),
    Mode(
        "certify", f"{SMOOTH} --scores soft --goal radius --engine ray", PLAIN | CASES_OF | OF_CLAIM | {"gate", "tuned"},
        {"bound": "bernstein", "norm": "linf", "engine": "local", "scores": "hard", "noise": "bands"},
    ),
    Mode("certify", f"{SMOOTH} --goal fixed", {"settle", "relative_precision"}, only={"settle", "relative_precision"}),
    Mode("certify", f"{SMOOTH} --standard none", STANDARD - {"standard"}, only=STANDARD),
    Mode(
        "certify", f"{EXACT} margin", SAMPLING | RAY | CASES_OF | OF_CLAIM | {"sigma", "dimension", "lipschitz_constant", "constant_of"},
        {"radii": "0,0.1", "certificates": "exact", "noise": "bands"},
    ),
    Mode(
        "certify", f"{EXACT} lipschitz-constant --lipschitz-constant 1",
        SAMPLING | RAY | CASES_OF | OF_CLAIM | {"sigma", "dimension", "bound_method", "arithmetic", "max_radius"},
        {"norm": "linf", "certificates": "exact", "noise": "bands"},
    ),
    Mode(
        "certify", "--alpha 0.76 --noise bands",
        (SAMPLING - {"gate", "shard"}) | PLAIN | RAY | OF_CLAIM | {"sigma", "certificates", "norm", "dimension"}, {"radii": "2,3"},
    ),
    Mode("certify", "--alpha 0.76 --noise splitting", {"patch"}, only={"scale", "patch", "radii"}),
    Mode(
        "certify", f"{SMOOTH} --goal population --at-radius 0.2",
        PLAIN | RAY | CASES_OF | STANDARD | {
            "selection_samples", "settle", "relative_precision", "scores", "score_temperature", "gate", "bound",
            "standard_temperature", "tuned", "certificates", "radii", "shard", "compiled", "all_at_once",
        },
        {"goal": "radii", "noise": "bands", "norm": "linf"},
    ),
    Mode("recertify", "run", OF_FILES | {"rows", "best", "noise", "scale"}, {"sigmas": "0.5"}),
    Mode(
        "recertify", "log.tsv --sigma 0.5",
        {"assume_selected", "bound", "failure_probability", "best", "noise", "scale", *OF_RUNS}, {"sigmas": "1"},
    ),
    Mode("recertify", "log.tsv other.tsv --sigma 0.5", only={"best"}, refused=True),
    Mode("recertify", "counts.txt --sigma 0.5", {"as_printed", "best", "noise", "scale", *OF_RUNS}, {"sigmas": "1"}),
    Mode(
        "recertify", "lower.tsv --noise uniform --scale 0.5", values={"noise": "laplace", "scale": "1"},
        only={"noise", "scale"},
    ),
    Mode("merge", "a b"),
    Mode("plan", "--throughput 1000 --samples 300", {"columns"}, {"noise": "laplace", "scale": "0.25"}),
    Mode("plan", "--throughput 1000 --samples 300 --like run", {"scenario", "columns"},
        {"sigma": "0.5", "like": "log.tsv", "noise": "laplace", "scale": "0.5"}),
    Mode(
        "plan", "--throughput 1000 --like lower.tsv --noise uniform --scale 0.5", {"scenario", "columns"},
        {"noise": "laplace", "like": "run", "sigma": "1"},
    ),
    Mode(
        "plan", "--throughput 1000 --noise bands --columns 32",
        {"sigma", "samples", "radii", "selection_samples", "like", "scenario", "alpha"}, {"noise": "splitting"},
    ),
    Mode("show", "run"),
    Mode("audit", "log.tsv"),
    Mode("audit", "run", {"sigmas", "samples", "failure_probability", "radii", "rows"}),
    Mode("report", "run"),
    Mode("report", "attacked", {"inputs"}),
    Mode("falsify", "run", {"restarts"}),
    Mode("falsify", "plain", {"copies", "samples", "gate"}),
    Mode("falsify", "--replay finding.json", SEARCH, {"finding": "other.json"}),
    Mode("trade-off", "log.tsv --sigma 0.5", {"assume_selected", *OF_RUNS} - {"tuned"}, {"sigmas": "1"}),
    Mode("trade-off", "counts.txt --sigma 0.5", {"as_printed", *OF_RUNS} - {"tuned"}, {"sigmas": "1"}),
    Mode("trade-off", "run", {*OF_FILES, "standard_accuracy"}, {"sigmas": "0.5"}),
    Mode("compare", "run run"),
    Mode("attack", "", OF_MIX),
    Mode("attack", "--alpha 0.76"),
    Mode("attack", "--attack fgsm", OF_MIX | {"seed", "steps"}),
    Mode("attack", "--attack fgsm --restarts 2", OF_MIX | {"steps"}),
    Mode("attack", "--attack autoattack", OF_MIX | {"steps"}),
    Mode("attack", "--attack square --alpha 0.5"),
    Mode("mix-sweep"),
    Mode("compare-trust", "", set(), {"norms": "l2"}),
    Mode("compare-trust", "--norm linf --norm l2", {"eps"}, {"norms": "l1"}),
    Mode("confidence"),
    Mode("lipschitz"),
    Mode("lipschitz", "--check 1", {"alpha"}),
    Mode("lipschitz", "--of logits", {"alpha"}, {"of": "probabilities"}),
    Mode("nuts fit", "", CERTIFIED, {"certified": "", "published": "cifar100", "standard_temperature": "2"}),
    Mode(
        "nuts fit", "--certified --at-radius 0.5 --sigma 0.5", UNCERTIFIED,
        {"sigma": "0.25", "bound": "bernstein"},
    ),
    Mode("nuts fit", "--logits logits.npz", NOT_OF_LOGITS | {"model_timeout"}, {"logits": "other.npz", "standard_temperature": "2"}),
    Mode("nuts evaluate", "mix"),
    Mode("tune", "--sigma 0.5 --at-radius 0.5"),
    Mode("nuts study", "beta mix", {"run_code", "model_timeout"}),
    Mode("nuts study", "cost mix", only={"run_code", "model_timeout"}),
    Mode("verify", "guarantee.toml", set(OTHERS)),
    Mode("verify", "run", {"budget", "runs", "fresh", "batch_size"}, OTHERS),
    Mode(
        "verify", "run --resample 0",
        {"budget", "runs", "fresh", "batch_size", "resample_samples", "new_seed", "error_rate", "device"}, {"resample": "3", **OTHERS},
    ),
    Mode("verify", "guarantee.toml --resample 0", {*OTHERS, "resample_samples", "new_seed", "error_rate"}),
    Mode("verify", "guarantee.toml --format json", {"details", *OTHERS}, {"format_": "text"}),
    Mode("evidence", "guarantee.toml --new-seed 3"),
    Mode("evidence", "run --new-seed 3", {"budget", "runs", "fresh", "batch_size"}),
    Mode("evidence", "run --resample 0", {"resample_samples", "new_seed", "error_rate", "device"}, only={"resample_samples", "new_seed", "error_rate", "device"}),
    Mode("guarantee init", "run --output made.toml", only={"output", "slack", "pin", "groups", "per", "confidence", "unit", "domain", "budget", *OTHERS}, values=OTHERS),
    Mode("guarantee init", "run --output guarantee.toml", only={"force"}, refused=True),
    Mode("guarantee init", "run --output -", {"force"}, OTHERS),
    Mode("guarantee check", "guarantee.toml"),
    Mode("reproduce", "run", values=OTHERS),
    Mode("selftest"),
    *[
        Mode("train", f"{name} --data folders", idle, {
            "data": "folders/test", "evaluation": "folders/test", "noise": "laplace",
            "start": "cifar10-standard"})
        for name, idle in RECIPES.items()
    ],
    Mode("models"),
]  # fmt: skip

VALUES = {
    "all_at_once": "",
    "alpha": "0.8", "alphas": "0.5,1", "apart": "", "as_printed": "", "assume_selected": "", "at_radius": "0.3", "at_least": "0.2",
    "attack": "apgd-ce", "autoattack": "", "batch_size": "7", "best": "", "beta": "0.9",
    "budget": "5000", "cases": "300", "confidence": "0.9", "domain": "a box", "groups": "site=sites.txt", "per": "class", "unit": "volts",
    "bound": "clopper-pearson-two-sided", "bound_method": "interval", "arithmetic": "exact", "columns": "9", "certificate": "smoothing",
    "certificates": "exact", "certified": "", "certify_inputs": "3", "check": "2", "clamp": "relu", "classes": "7", "classifier": "other.py:c",
    "clean_accuracy_floor": "0.4", "compiled": "off", "conditional": "", "consistency": "1",
    "constant_of": "probabilities", "copies": "5", "copy_weights": "", "crop": "7", "data": "other.npz",
    "denoiser": "other.py:d", "details": "", "device": "cpu", "engine": "ray", "epochs": "2", "eps": "0.01", "proof": "proof.json", "error_rate": "0.05",
    "evaluation": "folders", "failure_probability": "0.01", "finding": "finding.json", "force": "",
    "format_": "json", "forms": "logits", "feature_scale": "0.5", "fresh": "", "full_strength": "", "gate": "0.6", "clean_accuracy": "0.8", "lose": "3",
    "standard_temperature": "0", "score_temperature": "2", "tuned": "0.6,0,0.62", "goal": "fixed",
    "gpus_per_worker": "0.5", "gradient_free": "", "label_column": "species", "grid": "s=1,p=1,c=0", "inputs": "3", "input_range": "-1,1",
    "learning_rate": "0.01", "like": "run", "lipschitz_constant": "2", "logits": "logits.npz",
    "scale": "2", "settle": "all", "match_clean_accuracy": "0.5", "max_radius": "2", "model_timeout": "9", "name": "mine", "names": "radii", "new_seed": "5",
    "noise_sigma": "0.3", "noisy_samples": "20", "noise": "splitting", "norm": "l2", "norms": "l2", "of": "logits",
    "patch": "3", "output": "somewhere", "pin": "", "plain_alphas": "0.5", "plot": "other.png", "plot_format": "pdf", "population": "distribution", "precision": "bf16",
    "preset": "cifar100", "price_per_hour": "2", "published": "cifar100", "quantile": "linear", "queries": "9",
    "r_d": "0.5", "r_d_sweep": "0.5", "radii": "0,0.1", "ratio": "yang", "ray_address": "auto",
    "dimension": "7", "relative_precision": "0.2", "reports": "json=report.json", "resize": "9", "restarts": "3",
    "rival": "second", "robust": "other.py:h", "robust_files": "h.json", "robust_normalize": "0.5/0.2", "robust_outputs": "probabilities",
    "resample": "4", "resample_samples": "500", "robust_weights": "h.pt", "rows": "5", "run_code": "", "runs": "elsewhere", "samples": "500", "save": "points.npz",
    "scenario": "cifar10", "scores": "soft", "seed": "5", "selection_samples": "50", "shard": "1/2",
    "sharpen_alpha": "0.9", "sigma": "1", "sigmas": "0.01", "slack": "0.1", "split": "test",
    "standard": "other.py:g", "standard_accuracy": "0.5", "standard_files": "g.json",
    "standard_normalize": "0.5/0.2", "standard_outputs": "probabilities", "standard_weights": "g.pt", "start": "cifar10-standard", "steps": "3", "sweep_inputs": "4",
    "targets": "3", "throughput": "77", "title": "Mine", "trusts": "all", "weights": "0.5",
    "workers": "2",
}  # fmt: skip
"""A value of every option, by the parameter's name: other than the default; flags take none."""

STUDIES = {
    "attack": "attack.attack", "mix-sweep": "mix_sweep.mix_sweep", "confidence": "confidence.confidence",
    "compare-trust": "compare_trust.compare_trust", "lipschitz": "lipschitz.local_lipschitz",
    "nuts evaluate": "nuts_evaluate.nuts_evaluate",
}  # fmt: skip
OBSERVED = {
    "certify": [
        "certmix.certification.run.run_certify",
        "certmix_cli.certify.print_result",
    ],
    "recertify": [],
    "merge": ["certmix.certification.shards.merge", "certmix_cli.certify.print_result"],
    "plan": [],
    "show": [],
    "compare": [],
    "audit": [],
    "report": ["certmix.page.write_report"],
    "falsify": [
        "certmix.verification.falsify.falsify.falsify", "certmix.verification.falsify.falsify.replay",
        "certmix_cli.verify._print",
    ],
    "trade-off": ["certmix.tables.curves.plot_trade_off"],
    **{
        name: [f"certmix.studies.{function}", "certmix_cli.studies.print_study"]
        for name, function in STUDIES.items()
    },
    "nuts fit": [
        "certmix.studies.nuts_fit.nuts_fit", "certmix.studies.nuts_fit.fit_file",
        "certmix.studies.nuts_certified.nuts_certified", "certmix.studies.nuts_fit.nuts_published",
        "certmix_cli.nuts.print_study", "certmix_cli.studies.print_study",
    ],
    "tune": ["certmix.studies.tune.tune", "certmix_cli.studies.print_study"],
    "nuts study": [
        "certmix.studies.nuts_ablations.nuts_study", "certmix_cli.nuts.print_study",
        "certmix.files.write_atomically", "certmix.tables.formats.write_files",
    ],
    "verify": ["certmix.verification.verify.verify", "certmix_cli.verify._show", "certmix_cli.verify.isolated"],
    "evidence": [
        "certmix.verification.verify.verify", "certmix.assurance.pack.pack", "certmix_cli.evidence.isolated",
        "certmix.tables.print_table",
    ],
    "reproduce": ["certmix.certification.reproduce.reproduce"],
    "selftest": ["certmix_cli.selftest._run"],
    "train": ["certmix.training.train_to_folder"],
    "guarantee init": [],
    "guarantee check": [],
    "models": [],
}  # fmt: skip
"""What is recorded and not done; all else of a command is done."""


def walked(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that is no group, by its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from walked(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMAND = dict(walked(cli))


def options(command: str) -> dict[str, click.Option]:
    found = [one for one in COMMAND[command].params if isinstance(one, click.Option)]
    return {str(one.name): one for one in found if one.name != "help"}


CASES = [
    (mode, name)
    for mode in MODES
    for name, option in sorted(options(mode.command).items())
    if name in (mode.only or {name}) and not (option.is_flag and option.opts[0] in mode.words.split())
]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder of logs, class counts and inputs, which is to hold runs as well."""
    folder = tmp_path_factory.mktemp("options")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in range(2):
            (folder / "folders" / split / f"class{label}").mkdir(parents=True)
            for k in range(2):
                pixels = rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / "folders" / split / f"class{label}" / f"{k}.png")
    log = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.250\t1\t0:00:01.5\n7\t1\t-1\t0.0\t0\t0:00:01.5\n"
    (folder / "log.tsv").write_text(log)
    (folder / "other.tsv").write_text(log.replace("0.250", "0.412"))
    (folder / "lower.tsv").write_text("idx\tlabel\tpredict\tp_lower\n0\t3\t3\t0.9\n7\t1\t1\t0.8\n")
    (folder / "counts.txt").write_text("90 10 0\n5 95 1\n100 0 0\n")
    (folder / "sites.txt").write_text("a\n" * 12)
    return folder


@pytest.fixture
def begun(command, problem, made, monkeypatch) -> Path:
    """The same with a run under noise, one without, a study and a guarantee: where commands run."""
    nets = f"{problem.folder / 'nets.py'}:linear"
    few = ("--inputs", 3, "--data", problem.folder / "points.npz", "--robust", nets)
    mix = (*few, "--standard", nets, "--alpha", 0.76)
    if not (made / "guarantee.toml").exists():
        for words in (
            ("certify", *mix, "--sigma", 0.25, "--samples", 300, "--output", made / "run"),
            ("certify", *mix, "--certificate", "lipschitz-constant", "--lipschitz-constant", 20,
             "--output", made / "plain"),
            ("attack", *few, "--steps", 2, "--output", made / "attacked"),
            ("guarantee", "init", made / "run", "--output", made / "guarantee.toml"),
        ):  # fmt: skip
            done = command(*words)
            assert done.code == 0, done.err
    monkeypatch.chdir(made)
    return made


@dataclass(frozen=True)
class Observed:
    """Exit code (-1 where a stand-in of a result would not do), all that was asked, printed, written; stderr."""

    code: int
    told: str
    err: str


Stamp = tuple[int, int, int]


def stamps(folder: Path) -> dict[str, Stamp]:
    """The files below a folder, each with what a write to it changes."""
    found: dict[str, Stamp] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                found.update(stamps(Path(entry.path)))
            else:
                status = entry.stat()
                found[entry.path] = status.st_mtime_ns, status.st_size, status.st_ino
    return found


@pytest.fixture(scope="module")
def held() -> dict[str, tuple[Stamp, bytes]]:
    """What was read of each file, and its stamp then."""
    return {}


@pytest.fixture
def observe(command, begun, held, monkeypatch):
    """Return a function that runs a command as far as it goes without the library's work."""

    def run(name: str, words: list[str]) -> Observed:
        before = stamps(begun)
        for path, stamp in before.items():
            if held.get(path, (None, b""))[0] != stamp:
                held[path] = stamp, Path(path).read_bytes()
        told: list[str] = []
        code, err = -1, ""
        with monkeypatch.context() as patch:
            patch.setattr("certmix.certification.analysis.trade_off.ALPHAS", (0.5, 0.76, 0.8, 1.0))
            for target in OBSERVED[name]:
                module, _, function = target.rpartition(".")
                patch.setattr(import_module(module), function, recorder(function, told))
            patch.setattr("certmix.guard.watch", recorder("watch", told))
            done = command(*name.split(), *words)
            if "certmix itself failed" not in done.err:
                code, err = done.code, done.err
            told += [done.out, done.err]
        after = stamps(begun)
        for path in map(Path, sorted(set(after) - set(before))):
            told.append(f"{path.relative_to(begun)} {path.read_bytes()!r}")
            path.unlink()
        for path, stamp in before.items():
            if after.get(path) != stamp and Path(path).read_bytes() != held[path][1]:
                told.append(f"{path} changed")
                Path(path).write_bytes(held[path][1])
        return Observed(code, re.sub(r" at 0x[0-9a-f]+", "", "\n".join(told)), err)

    return run


def recorder(function: str, told: list[str]) -> Any:
    def record(*given: object, **named: object) -> MagicMock:
        given += tuple(one.as_dict() for one in given if hasattr(one, "as_dict"))  # which short reprs hide
        told.append(re.sub(r"id='\d+'", "", f"{function} {given} {named}"))
        return MagicMock()

    return record


@pytest.fixture(scope="module")
def without() -> dict[int, Observed]:
    """What each mode does without a further option, once it is known."""
    return {}


def test_every_command_has_a_mode_and_every_option_an_effect_in_one():
    assert {mode.command for mode in MODES} == set(COMMAND) == set(OBSERVED)
    assert {name.split()[0] for name in COMMAND} == set(COMMANDS)
    for command in COMMAND:
        tried = {name for mode, name in CASES if mode.command == command and name not in mode.idle}
        assert tried == set(options(command)), command
        assert tried <= set(VALUES)


@pytest.mark.parametrize(
    ("mode", "name"), CASES, ids=lambda x: f"{x.command} {x.words}" if isinstance(x, Mode) else x
)
def test_an_option_that_is_accepted_has_an_effect(observe, without, mode, name):
    option, base = options(mode.command)[name], mode.words.split()
    if id(mode) not in without:
        without[id(mode)] = observe(mode.command, base)
    assert (without[id(mode)].code == 2) == mode.refused, without[id(mode)].err
    value = [] if option.is_flag else [{**VALUES, **mode.values}[name]]
    done = observe(mode.command, [*base, option.opts[0], *value])
    if name in mode.idle:
        assert done.code == 2 and option.opts[0] in done.err, f"{option.opts[0]} is accepted: {done.err}"
    else:
        assert done.told != without[id(mode)].told, f"{option.opts[0]} changes nothing"
        assert done.code != 2 or name in mode.values, done.err


def kinds_of(kind: type[Settings]) -> Iterator[type[Settings]]:
    for one in kind.__subclasses__():
        yield one
        yield from kinds_of(one)


def test_an_option_takes_each_name_and_the_default_of_its_setting():
    list(walked(cli))  # all commands and their settings are loaded
    tried = 0
    for kind in kinds_of(Settings):
        for one in fields(kind):
            if not one.option.help or one.plain is bool:
                continue
            unsaid = one.required or any(one.default is it for it in (None, (), False))
            command = click.command()(declared(kind, only=[one.name])(lambda **given: given))
            for text in [*one.names, *([] if unsaid else [written(one.default)])]:
                given = command.main([one.flag, text], standalone_mode=False)
                assert list(given) == [one.name], (kind, one.name, text)
                tried += 1
    assert tried > 100
