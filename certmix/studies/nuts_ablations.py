"""Studies of MixedNUTS from cached results, a function an appendix: no attack is run, each takes seconds.

Numbered as in Bai, Zhou, Patel, Sojoudi, "MixedNUTS: Training-Free Accuracy-Robustness Balance via
Nonlinearly Mixed Classifiers", TMLR 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from certmix.data import stack
from certmix.errors import CertmixError, DataError, ModelError, ParameterError, RunError, check_choice
from certmix.nuts.algorithm import auxiliary_alpha, mixing_weight
from certmix.nuts.description import PUBLISHED
from certmix.nuts.folder import load_nuts
from certmix.nuts.grid import CLAMP_NAMES, TransformSettings
from certmix.nuts.margins import CLAMPS, bend, clean_margin, normalize_numpy, softmax_numpy, transform_numpy
from certmix.runs import read_run
from certmix.runs.folder import DESCRIPTION
from certmix.runs.sources import Sources, load_data
from certmix.studies.nuts_cached import (
    Inputs,
    Rule,
    count_elements,
    count_flops,
    judge,
    parameters,
    read_inputs,
    withstands,
)
from certmix.studies.nuts_choices import STUDIES
from certmix.studies.nuts_evaluate import STD
from certmix.studies.nuts_fit import CachedLogits
from certmix.studies.shares import estimated_accuracy
from certmix.studies.study import StudyResult
from certmix.tables import nuts_plots
from certmix.tables.study_plots import gaps_image
from certmix.tables.table import Quantity, Table
from certmix.text import plain_decimal
from certmix.types import FloatArray

__all__ = ["STUDIES", "nuts_study"]

PARAMETERS = ("s", "p", "c", "alpha")
NO_PARAMETERS = (Quantity(None, 3),) * 4


def nuts_study(name: str, folders: Sequence[str | Path], *, run_code: bool = False) -> StudyResult:
    """Make a study of MixedNUTS, by its name in `STUDIES`, from run folders in any order.

    These are of ``certmix nuts fit`` and, where the study can use one, of ``certmix nuts evaluate``.  Study
    ``cost`` alone loads models: code that ``nuts.json`` names runs only with `run_code`, else ModelError.
    """
    check_choice("study", name, STUDIES)
    wanted, inputs = STUDIES[name], read_inputs(folders)
    fits = len(inputs.fits)
    if fits < wanted.fits or (wanted.fits == 1 and fits > 1):
        number = "one" if wanted.fits == 1 else f"at least {wanted.fits}"
        raise ParameterError(
            f"study {name} needs {number} run folder(s) of certmix nuts fit, here are {fits}: name them"
        )
    if inputs.points is not None and not wanted.evaluation:
        raise ParameterError(f"study {name} has no use for {inputs.points.folder}: leave the evaluation out")
    if name == "cost":
        return cost(inputs, run_code=run_code)
    study: Callable[[Inputs], StudyResult] = globals()[name.replace("-", "_")]
    return study(inputs)


def sensitivity(inputs: Inputs) -> StudyResult:
    """Tabulate the best point for each c, and map objective and threshold over s and p (Appendix D.1)."""
    found, near_by = inputs.fit.fitted.fit, 0.01
    own = found.settings
    near = found.feasible & (found.objectives <= found.objective + near_by + 1e-12)
    rows: list[tuple[Any, ...]] = []
    for k, c in enumerate(found.grid.c):
        feasible = found.feasible[:, :, k]
        counts = (feasible.size, int(feasible.sum()), int(near[:, :, k].sum()))
        if not feasible.any():
            rows.append((Quantity(c, 3), *(Quantity(None, 3),) * 5, *counts))
            continue
        objectives = np.where(feasible, found.objectives[:, :, k], np.inf)
        q = found.thresholds[:, :, k]
        i, j = min(np.ndindex(objectives.shape), key=lambda at: (objectives[at], -q[at]))
        rows.append((
            Quantity(c, 3), Quantity(found.grid.s[i], 3), Quantity(found.grid.p[j], 2),
            Quantity(float(objectives[i, j]), 4), Quantity(float(q[i, j]), 6, rounding="down"),
            Quantity(mixing_weight(float(q[i, j])), 6, rounding="up"), *counts,
        ))  # fmt: skip
    table = Table(
        name="nuts-sensitivity",
        title="Sensitivity of Algorithm 1: the best s and p for each c (estimates on tuning inputs)",
        settings=f"beta {plain_decimal(found.beta)}, clamp {own.clamp}, {found.quantile} quantile, "
        f"rival {found.rival}",
        headings=("c", "s", "p", "objective", "threshold q", "alpha", "points", "feasible", "near-optimal"),
        rows=tuple(rows),
        notes=(
            f"Chosen: s {own.s:.4g}, p {own.p:.3g}, c {own.c:.3g}, alpha {found.alpha:.5g}: objective "
            f"{found.objective:.4f}, q {found.margin_threshold:.4g}.",
            f"objective: share of the {found.clean_wrong:,} misclassified clean inputs whose margin is >= q, "
            "which g cannot mend; lower is better. near-optimal: within "
            f"{plain_decimal(near_by)} of the chosen point's; {int(near.sum())} of {near.size} points are.",
            "The least of many estimates on the same inputs is optimistic; nothing here is held out.",
            inputs.fit.origin,
        ),
        extra={
            "grid": {name: list(getattr(found.grid, name)) for name in "spc"},
            "objectives": found.objectives.tolist(),
            "thresholds": found.thresholds.tolist(),
            "feasible": found.feasible.tolist(),
        },
    )
    candidates, maps = [getattr(found.grid, name) for name in "spc"], {}
    chosen = [values.index(getattr(own, name)) for name, values in zip("spc", candidates, strict=True)]
    for stem, name, words, values in (
        ("sensitivity", "objective", "share of wrong clean inputs that g cannot mend", found.objectives),
        ("thresholds", "threshold q", "margin threshold q (alpha = 1 / (1 + q))", found.thresholds),
    ):
        maps[f"nuts-{stem}"] = partial(
            nuts_plots.sensitivity_image, candidates, np.where(found.feasible, values, np.nan), chosen,
            name=name, title=f"{inputs.fit.numbers.models['robust']}: {words} over s, p and c",
            subtitle=f"beta {plain_decimal(found.beta)}, clamp {own.clamp}; {found.inputs:,} tuning "
            f"inputs, {found.clean_wrong:,} of them wrong clean",
            logarithmic=stem == "thresholds",
        )  # fmt: skip
    return StudyResult(table, maps)


def margins(inputs: Inputs) -> StudyResult:
    """Tabulate margins of g, h, LN(h) and M(h), with the share of M(h)'s that reach q (5.2, C.3)."""
    logits, found, points = inputs.fit.logits, inputs.fit.fitted.fit, inputs.points
    groups: dict[tuple[str, str], tuple[FloatArray, FloatArray]] = {}  # right, wrong

    def add(name: str, condition: str, scores: FloatArray, labels: np.ndarray = logits.labels) -> None:
        """Split margins by whether these very logits give the right answer."""
        gaps, right = clean_margin(scores), scores.argmax(1) == labels
        groups[name, condition] = gaps[right], gaps[~right]

    add("g", "clean", logits.standard)
    for condition, robust in (("clean", logits.robust), ("smallest margin", logits.attacked)):
        add("h", condition, robust)
        add("LN(h)", condition, normalize_numpy(robust, found.settings.top_k))
        add("M(h)", condition, transform_numpy(robust, found.settings))
    if points is not None and STD in points.base:
        standard = np.split(points.base[STD], 2, axis=1)[0]
        attacked = ~np.isnan(standard).any(1)
        add("g", "STD attack", standard[attacked], points.labels[attacked])

    rows: list[tuple[Any, ...]] = []
    for (name, _), both in groups.items():
        for answer, gaps in zip(("right", "wrong"), both, strict=True):
            middles = [float(f(gaps)) if len(gaps) else None for f in (np.mean, np.median)]
            bent = name == "M(h)" and len(gaps)
            share = estimated_accuracy(gaps >= found.margin_threshold) if bent else None
            rows.append((name, answer, len(gaps), *(Quantity(m, 4) for m in middles), share))
    between: dict[str, float | None] = {}  # median of right attacked inputs less that of wrong clean ones
    for name in ("h", "LN(h)", "M(h)"):
        right, wrong = groups[name, "smallest margin"][0], groups[name, "clean"][1]
        known = len(right) and len(wrong)
        between[name] = float(np.median(right) - np.median(wrong)) if known else None
    told = ", ".join(f"{n} {'-' if gap is None else format(gap, '.4f')}" for n, gap in between.items())
    conditions = list(dict.fromkeys(condition for _, condition in groups))
    values = ", ".join(f"{name} {getattr(found.settings, name):.4g}" for name in "spc")
    settings = (
        f"{values}, clamp {found.settings.clamp}, beta {plain_decimal(found.beta)}: "
        f"alpha {found.alpha:.6g}, threshold q {found.margin_threshold:.4g}"
    )
    stops = "It stops at an input's first misclassification, so wrong answers there are barely wrong. "
    table = Table(
        name="nuts-margins",
        title="Confidence margins before and after the transform (estimates on tuning inputs)",
        settings=settings,
        headings=("logits", "answer", "inputs", "mean margin", "median margin", "margin >= q (%)"),
        rows=tuple(rows),
        groups=tuple((name, 2 * sum(condition == name for _, condition in groups)) for name in conditions),
        notes=(
            "margin: the largest probability less the second. Where M(h) is right with margin >= q, no g can "
            "harm the mix; where it is wrong with margin < q, g can overrule it.",
            f"Margin gap, median of right attacked less median of wrong clean inputs (Figure 6): {told}.",
            "smallest margin: the point of smallest margin of LN(h) that the fit's attack found. "
            f"{stops if inputs.fit.choices.early_stop else ''}M was chosen on these inputs.",
            *([] if points is None else [
                f"STD attack: g at the points made on it in {points.folder.name}, on other inputs."
            ]),
            inputs.fit.origin,
        ),
        extra={"margin_gap": {name: gap for name, gap in between.items() if gap is not None}},
    )  # fmt: skip
    model = inputs.fit.numbers.models["robust"]
    bars = partial(
        nuts_plots.margin_bars_image, groups, bent="M(h)", threshold=found.margin_threshold,
        title=f"{model}: margins before and after the transform", subtitle=settings,
    )  # fmt: skip
    histograms = partial(gaps_image, groups, title=f"{model}: margins; {settings}")
    return StudyResult(table, {"nuts-margins": histograms, "nuts-margin-bars": bars})


def transform(inputs: Inputs) -> StudyResult:
    """Tabulate Figure 3 of the paper, and draw it, the curve of M, and Figure 4 (Section 4.4)."""
    # The logits of classes A, B and C in Figure 3.  Its s, p and c are not printed in the paper; these,
    # like some others, give every digit of it.
    cases = {"large margin": (1.0, -1.1, -1.0), "small margin": (-1.0, 1.1, 1.0)}
    classes, figure_3 = ("A", "B", "C"), TransformSettings(300.0, 4.0, -0.67)
    logits, own = np.array(list(cases.values())), inputs.fit.fitted.fit.settings
    raw, bent = softmax_numpy(logits), softmax_numpy(transform_numpy(logits, figure_3))
    before, after = (clean_margin(np.log(shares)).tolist() for shares in (raw, bent))

    def words(one: TransformSettings) -> str:
        return f"s {one.s:.3g}, p {one.p:.3g}, c {one.c:.3g}, clamp {one.clamp}"

    rows: list[tuple[Any, ...]] = []
    for k in range(len(cases)):
        rows += [
            (name, Quantity(logits[k, j], 1), Quantity(raw[k, j], 3), Quantity(bent[k, j], 3))
            for j, name in enumerate(classes)
        ]
        rows.append(("margin", Quantity(None, 1), Quantity(before[k], 4), Quantity(after[k], 4)))
    table = Table(
        name="nuts-transform",
        title="Three classes before and after the transform: the example of Figure 3",
        settings=f"s {figure_3.s:g}, p {figure_3.p:g}, c {figure_3.c:g}, clamp gelu",
        headings=("class", "logit", "softmax(h)", "softmax(M(h))"),
        rows=tuple(rows),
        groups=tuple((name, len(classes) + 1) for name in cases),
        notes=(
            "margin: the largest probability less the second. The paper prints .698 for the raw "
            "large margin, the distance to the smallest class; to the runner-up it is .687.",
            "The paper does not print s, p and c of this figure; these, like some others, give all its other "
            "digits.",
            f"The figure's curve of {inputs.fit.folder.name}: {words(own)}.",
        ),
    )
    # M of a normalised logit, as each setting has it; the identity is LN alone.
    line = np.linspace(-2.0, 3.0, 401)
    named = {f"{inputs.fit.folder.name} (this fit)": own, "Figure 3": figure_3}
    named |= {f"{name} (paper)": PUBLISHED[name].transform for name in ("cifar10", "cifar100")}
    bends = {"LN alone: s 1, p 1, c 0, no clamp": line}
    for name, one in named.items():
        bends[f"{name}: {words(one)}"] = bend(line, one)
    # Paths of both cases on the simplex as the temperature falls from infinity to 0, in which s drops out.
    temperatures = np.geomspace(1e-7, 1e5, 1601)[::-1, None]
    paths = {"raw logits": [softmax_numpy(one / temperatures) for one in logits]}
    for name, one in (
        ("p = 1, c = 0", TransformSettings(1.0, 1.0, 0.0)),
        ("p = 2, c = -0.67", TransformSettings(1.0, 2.0, -0.67)),
        ("p = 4, c = -0.67 (Figure 3)", figure_3),
    ):
        paths[name] = [softmax_numpy(each / temperatures) for each in transform_numpy(logits, one)]
    examples = {name: (logits[k], raw[k], bent[k]) for k, name in enumerate(cases)}
    drawn = partial(nuts_plots.example_image, examples, classes=classes)
    curves = partial(nuts_plots.transform_image, bends, paths)
    return StudyResult(table, {"nuts-transform": curves, "nuts-example": drawn})


def beta(inputs: Inputs) -> StudyResult:
    """Solve Algorithm 1 for each beta on half the cached inputs, and judge on the other half (Section 5.1).

    The plain mix's alpha keeps the same share of attacked margins of softmax(h): both columns promise the
    same.
    """
    fit, (tune, held) = inputs.fit, inputs.fit.halves
    betas = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.985, 0.99, 1.0, fit.choices.beta)
    h, drawn = inputs.judge(Rule(1.0)), len(NO_PARAMETERS) + 1  # columns before the accuracies
    rows: dict[str, list[tuple[Any, ...]]] = {"base models": [], "MixedNUTS": [], "plain mix": []}
    rows["base models"] = [("g", *NO_PARAMETERS, *inputs.judge(Rule(0.0))), ("h", *NO_PARAMETERS, *h)]
    missing = []
    for share in sorted(set(betas)):
        name = plain_decimal(share)
        try:
            found = fit.solve(beta=share)
        except ParameterError:
            missing.append(name)
        else:
            one = inputs.judge(Rule.of(found.settings))
            rows["MixedNUTS"].append((name, *parameters(found), *one))
        alpha = auxiliary_alpha(
            tune.attacked, tune.labels, share, quantile=fit.choices.quantile, normalize=False
        )
        cells = (name, *NO_PARAMETERS[:3], Quantity(alpha, 6, rounding="up"))
        rows["plain mix"].append((*cells, *inputs.judge(Rule(alpha))))
    table = Table(
        name="nuts-beta",
        title="Accuracy (%) over beta, judged on inputs held out from these fits, with 95 % intervals",
        settings=f"clamp {fit.choices.clamp}, T {plain_decimal(fit.choices.standard_temperature)}",
        headings=("beta", *PARAMETERS, *inputs.headings),
        rows=tuple(row for block in rows.values() for row in block),
        groups=tuple((name, len(block)) for name, block in rows.items()),
        notes=(
            "beta: share of the rightly classified attacked inputs that must withstand any g, on the fitted "
            "half. The plain mix (T 1, no transform) meets it by alpha alone.",
            *([f"No transform of the grid meets beta {', '.join(missing)}."] if missing else []),
            *inputs.notes,
        ),
    )
    seconds = ["withstands any g (%, estimate)"]
    if inputs.points is not None:
        seconds.append("attacked accuracy (%, by transfer, upper bound)")
    shown = {name: [(row[0], *row[drawn:]) for row in rows[name]] for name in ("MixedNUTS", "plain mix")}
    draw = partial(
        nuts_plots.beta_image, {**shown, "robust (h) alone": [("1", *h)]}, seconds,
        title=f"{fit.numbers.models['standard']} mixed with {fit.numbers.models['robust']}",
        subtitle=f"{len(held.labels):,} held-out inputs; {fit.numbers.request.words()}; numbers: beta",
    )  # fmt: skip
    return StudyResult(table, {"nuts-beta": draw})


def _by_beta_alone(name: str, bends: Callable[[FloatArray], FloatArray], inputs: Inputs) -> tuple[Any, ...]:
    """Return the row of a mix with softmax(bends(h)), neither LN nor s, p, c: its alpha meets beta."""

    def bent(half: CachedLogits) -> CachedLogits:
        return replace(half, robust=bends(half.robust), attacked=bends(half.attacked))

    (tune, held), points, choices = map(bent, inputs.fit.halves), inputs.points, inputs.fit.choices
    if points is not None:
        both = {cell: np.split(base, 2, axis=1) for cell, base in points.base.items()}
        base = {cell: np.concatenate([g, bends(h)], 1) for cell, (g, h) in both.items()}
        points = replace(points, base=base)
    alpha = auxiliary_alpha(
        tune.attacked, tune.labels, choices.beta, quantile=choices.quantile, normalize=False
    )
    rule = Rule(alpha, None, choices.standard_temperature)
    shown = Quantity(alpha, 6, rounding="up")
    return (name, *NO_PARAMETERS[:3], shown, Quantity(None, 4), "-", *judge(rule, held, points))


def clamp(inputs: Inputs) -> StudyResult:
    """Fit with each clamp on half the cached inputs, and judge on the other half (Appendix D.2).

    Beside them GELU alone as the transform, and none (Appendix D.1).
    """
    rows: list[tuple[Any, ...]] = []
    for name in CLAMP_NAMES:
        try:
            found = inputs.fit.solve(clamp=name)
        except ParameterError:
            rows.append((name, *NO_PARAMETERS, Quantity(None, 3), "no fit", *(None for _ in inputs.headings)))
            continue
        objective, edges = Quantity(found.fit.objective, 4), ", ".join(found.fit.on_edge) or "no"
        rows.append((name, *parameters(found), objective, edges, *inputs.judge(Rule.of(found.settings))))
    rows.append(_by_beta_alone("GELU alone", CLAMPS["gelu"], inputs))
    rows.append(_by_beta_alone("none", CLAMPS["linear"], inputs))
    return StudyResult(Table(
        name="nuts-clamp",
        title="Clamps compared: accuracy (%) on inputs held out from these fits, with 95 % intervals",
        settings=f"beta {plain_decimal(inputs.fit.choices.beta)}, the grid of {inputs.fit.folder.name}",
        headings=("clamp", *PARAMETERS, "objective", "on edge", *inputs.headings),
        rows=tuple(rows),
        notes=(
            "objective: share of the wrong clean inputs, on the fitted half, whose margin is >= q; lower is "
            "better. on edge: the optimum ends the grid's range there, and a wider grid may do better.",
            "GELU alone: softmax(GELU(h)), without LN, s, p and c; none: softmax(h). beta alone sets alpha.",
            *inputs.notes,
        ),
    ))  # fmt: skip


def tuning_size(inputs: Inputs) -> StudyResult:
    """Fit on the whole of one half, its halves, quarters and so on; judge all on the other (D.3)."""
    (tune, held), least = inputs.fit.halves, 25  # inputs of the smallest part
    right = held.attacked.argmax(1) == held.labels
    rows: list[tuple[Any, ...]] = []
    first: tuple[Rule, tuple[Any, ...]] | None = None
    stride = 1
    while stride == 1 or len(tune.labels) // stride >= least:
        rules: list[Rule] = []
        for start in range(stride):  # interleaved parts
            with suppress(CertmixError):
                part = tune.take(np.arange(start, len(tune.labels), stride))
                rules.append(Rule.of(inputs.fit.solve(part).settings))
        judged = [inputs.judge(rule) for rule in rules]
        if judged:
            first = first or (rules[0], judged[0])
            kept = [withstands(rule, held.attacked[right], held.labels[right]).mean() for rule in rules]
            ranges = ["-"] * 2
            if len(judged) > 1:
                for k in range(2):
                    shares = [100 * one[k].accuracy for one in judged]
                    ranges[k] = f"{min(shares):.1f} to {max(shares):.1f}"
            rows.append((
                str(len(tune.labels) // stride), f"{len(rules)}" + f" of {stride}" * (len(rules) < stride),
                Quantity(rules[0].alpha, 6, rounding="up"),
                Quantity(float(np.mean(kept)) if right.any() else None, 3), *judged[0], *ranges,
            ))  # fmt: skip
        stride *= 2
    if first is None:
        raise DataError(f"{inputs.fit.folder}: no part of its inputs can be fitted on: fit on more inputs")
    seen, unseen = judge(first[0], tune), first[1]
    words = ", ".join(
        f"{name} {100 * seen[k].accuracy:.1f} (seen) and {100 * unseen[k].accuracy:.1f} (held out)"
        for k, name in enumerate(("clean", "any g"))
    )
    return StudyResult(Table(
        name="nuts-tuning-size",
        title="Fewer tuning inputs: accuracy (%) on inputs held out from these fits, with 95 % intervals",
        settings=f"beta {plain_decimal(inputs.fit.choices.beta)}, clamp {inputs.fit.choices.clamp}",
        headings=("inputs", "fits", "alpha", "beta kept", *inputs.headings, "clean, all fits", "any g, all"),
        rows=tuple(rows),
        notes=(
            "inputs: of each part; the parts of a size share no input. alpha and the accuracies with "
            "intervals are of the first part; 'all' gives the range over all parts. beta kept: share of the "
            "held-out, attacked, right inputs that withstand any g, mean over parts; compare with beta.",
            f"The fit on all inputs of its half, on inputs it has seen and on others (%): {words}.",
            *inputs.notes,
        ),
        extra={"seen": {"clean": seen[0].accuracy, "any_g": seen[1].accuracy}},
    ))  # fmt: skip


def standard_temperature(inputs: Inputs) -> StudyResult:
    """Fit on half the cached inputs, and judge at several temperatures on the other half (D.4)."""
    found = inputs.fit.solve()
    mix, own = found.settings, found.settings.transform
    rows = [
        (plain_decimal(t), *inputs.judge(Rule(mix.alpha, mix.transform, t)))
        for t in sorted({0.0, 0.25, 0.5, 1.0, 2.0, inputs.fit.choices.standard_temperature})
    ]
    return StudyResult(Table(
        name="nuts-standard-temperature",
        title="Temperature T of g: accuracy (%) on inputs held out from this fit, with 95 % intervals",
        settings=f"beta {plain_decimal(found.fit.beta)}: s {own.s:.3g}, p {own.p:.3g}, c {own.c:.3g}, "
        f"alpha {mix.alpha:.5g}",
        headings=("T", *inputs.headings),
        rows=tuple(rows),
        notes=(
            "T 0 takes g's answer alone, T 1 its own probabilities. What any g can do does not depend on T, "
            "and neither do s, p, c and alpha.",
            *inputs.notes,
        ),
    ))  # fmt: skip


def transfer(inputs: Inputs) -> StudyResult:
    """Judge, for each fit's models, the s, p and c of each fit, alpha solved again and without (D.5)."""
    short = [fit.folder.resolve().name for fit in inputs.fits]
    names = {  # a folder's last part, or all of them where these are not unique
        name if short.count(name) == 1 else str(fit.folder): fit
        for name, fit in zip(short, inputs.fits, strict=True)
    }
    if len(names) < len(inputs.fits):
        raise ParameterError("a folder is named twice: name each fit once")
    fitted = {name: fit.solve() for name, fit in names.items()}
    rows: list[tuple[Any, ...]] = []
    for target, fit in names.items():
        tune, held = fit.halves

        def row(source: str, how: str, found: Any, held: Any = held) -> tuple[Any, ...]:
            return (source, how, *parameters(found), *judge(Rule.of(found.settings), held))

        rows.append(row(target, "own", fitted[target]))
        for source in [name for name in names if name != target]:
            found = fitted[source]
            point = ",".join(f"{name}={getattr(found.fit.settings, name)!r}" for name in "spc")
            try:
                again = names[source].solve(tune, grid=point, beta=fit.choices.beta)
                rows.append(row(source, "solved again", again))
            except ParameterError:
                rows.append((source, "solved again: none meets beta", *NO_PARAMETERS, None, None))
            rows.append(row(source, "kept", found))
    return StudyResult(Table(
        name="nuts-transfer",
        title="Transfer of s, p and c between models: accuracy (%) on held-out inputs, with 95 % intervals",
        settings="; ".join(f"{name}: beta {fit.choices.beta:g}" for name, fit in names.items()),
        headings=("s, p, c of", "alpha is", *PARAMETERS, "clean", "any g"),
        rows=tuple(rows),
        groups=tuple((f"on {name}", 2 * len(names) - 1) for name in names),
        notes=(
            "Estimates. Fits are made on a folder's cached inputs at even positions, and judged on those at "
            "odd positions of the folder they are tried on. solved again: alpha from that folder's even "
            "positions at its own beta, with s, p and c as they are; kept: alpha comes along.",
            "any g: the class stands at the point of smallest margin (margin >= (1 - alpha) / alpha), even "
            "if g puts all it has on the runner-up.",
            *(f"{name} is: {fit.origin}" for name, fit in names.items()),
        ),
    ))  # fmt: skip


def cost(inputs: Inputs, *, run_code: bool = False) -> StudyResult:
    """Count parameters and operations for one input (Appendix C.2)."""
    fit, numbers = inputs.fit, 4  # s, p, c and alpha
    nuts = load_nuts(fit.folder, run_code=run_code)
    pair, mixture = (nuts.standard, nuts.robust), nuts.mixture
    if nuts.robust.card is not None:
        input = torch.zeros(1, *nuts.robust.card.input_shape)
    else:
        try:
            known = Sources.from_dict(read_run(fit.folder)["sources"], fit.folder / DESCRIPTION, run_code)
            input = torch.from_numpy(stack(load_data(known), [0]))
        except (KeyError, TypeError, RunError) as error:
            raise ModelError(
                f"{fit.folder}: the shape of its inputs is unknown ({error}): fit again"
            ) from None
    sizes = [sum(p.numel() for p in one.module.parameters()) for one in pair]
    flops = [count_flops(one.module, input) for one in pair]
    with torch.no_grad():
        logits = [one.module(input) for one in pair]
    added = count_elements(lambda: mixture.mix(*logits))

    def row(name: str, size: int, operations: int) -> tuple[Any, ...]:
        """Operations in millions, and in percent of the robust model's; None where torch saw none."""
        digits = 6 if operations < 10**5 else 3 if operations < 10**8 else 1
        relative = 100 * operations / flops[1] if flops[1] and operations else None
        return (
            name, size, Quantity(operations / 1e6 if operations else None, digits),
            Quantity(relative, 5 if relative is not None and relative < 0.1 else 1),
        )  # fmt: skip

    return StudyResult(Table(
        name="nuts-cost",
        title="Parameters and floating-point operations of the mix, for one input",
        settings=f"input {' x '.join(map(str, input.shape[1:]))}, {logits[1].shape[1]} classes",
        headings=("part", "parameters", "FLOPs (10^6)", "relative to h (%)"),
        rows=(
            row(f"standard (g): {pair[0].name}", sizes[0], flops[0]),
            row(f"robust (h): {pair[1].name}", sizes[1], flops[1]),
            row("transform and mixing", numbers, added),
            row("MixedNUTS", sum(sizes) + numbers, sum(flops) + added),
        ),
        notes=(
            "FLOPs of g and h: matrix products and convolutions as torch counts them, 2 a multiply-add; "
            "normalisations and activations are left out.",
            "Transform and mixing: numbers that its operators read or write, the larger of the two. "
            "It has no learned parameter but s, p, c and alpha.",
            f"Models: of {fit.folder.name}.",
        ),
        extra={"flops": {"standard": flops[0], "robust": flops[1], "mixing": added}},
    ))  # fmt: skip
