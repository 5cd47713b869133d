"""What a page says in sentences: the headline, what is certified, what is estimated."""

from __future__ import annotations

from certmix.page.certified import start_radius
from certmix.page.chart import NORMS
from certmix.page.markup import Markup, tag
from certmix.page.values import CertifiedRun, Facts, lead_row
from certmix.tables.words import (
    LETTERS,
    certificate_label,
    deterministic,
    mean_radius,
    notes,
    radius_heading,
    summary_table,
)
from certmix.text import accuracy, ceil_digits, floor_digits, interval_ends, known, plain_decimal
from certmix.types import CertifiedAccuracy, Summary

AT_LEAST = f"{LETTERS.at_least} "

__all__ = ["budget_facts", "headline", "key_figures", "status", "warning"]


def warning(summary: Summary) -> Markup | None:
    """Return the warning of a partial result."""
    words = summary_table(summary).partial
    return tag("p", f"{words[0].upper()}{words[1:]}.", class_="warning", role="note") if words else None


def headline(summary: Summary) -> str:
    """Return in words what is certified, at what failure probability, for which models."""
    if not summary.rows or not summary.images:
        return "No image is finished: nothing is certified yet."
    lead, column = summary.rows[lead_row(summary.rows)], _column(summary)
    names = (
        f"{summary.standard or 'any standard classifier'} (g) and {summary.robust or 'the robust model'} (h)"
    )
    hits = round(summary.images * lead.certified_accuracy[column])
    share = f"{accuracy(lead.certified_accuracy[column])} %"
    return (
        f"On {hits:,} of {summary.images:,} images ({share}) the mix of {names} at \u03b1 = "
        f"{plain_decimal(summary.alpha)} is right, and {_proved(summary)} not to change its class "
        f"{_ball(summary, column)}, whatever g answers."
    )


def _column(summary: Summary) -> int:
    return list(summary.radii).index(start_radius(summary)) if start_radius(summary) else 0


def _proved(summary: Summary) -> str:
    if any(row.certificate == "lipschitz-constant" for row in summary.rows):
        return "certified, if the Lipschitz constant that was given is right,"
    if deterministic(summary):
        return "proved"
    if summary.failure_probability is None:
        return "certified"
    return f"certified (failure probability {plain_decimal(summary.failure_probability)} an image)"


def _ball(summary: Summary, column: int) -> str:
    norm = NORMS.get(summary.norm, summary.norm)
    if summary.radii[column] == 0:
        return f"within some {norm} distance above 0"
    shown = radius_heading(summary.radii[column], LETTERS).removeprefix(AT_LEAST)
    return f"under any change of the input of {norm} norm up to {shown}"


def key_figures(summary: Summary) -> Markup | None:
    """Return the four figures that matter most, each with what it is."""
    if not summary.rows or not summary.images:
        return None
    lead, column = summary.rows[lead_row(summary.rows)], _column(summary)
    low, high = interval_ends(lead.interval[column])
    kind = "exact on these images" if deterministic(summary) else "estimate from noisy votes"
    clean = summary.clean_accuracy
    items = [
        (
            f"{accuracy(lead.certified_accuracy[column])} %",
            f"certified at radius {radius_heading(summary.radii[column], LETTERS).removeprefix(AT_LEAST)}",
            f"95 % interval over images [{low}, {high}]",
        ),
        (
            mean_radius(lead, norm=summary.norm),
            "mean certified radius",
            f"{NORMS.get(summary.norm, summary.norm)}, {certificate_label(lead.certificate, LETTERS)}",
        ),
    ]
    if known(clean.mixed):
        items.append((f"{accuracy(clean.mixed)} %", "clean accuracy of the mix", kind))
    if known(clean.standard):
        items.append((f"{accuracy(clean.standard)} %", "clean accuracy of g alone", "nothing certified"))
    return tag(
        "dl",
        [
            tag("div", tag("dt", what), tag("dd", tag("b", figure), tag("span", more, class_="under")))
            for figure, what, more in items
        ],
        class_="key-figures",
    )


def status(run: CertifiedRun, level: int) -> list[Markup | None]:
    """Return what is certified, what is estimated, and the notes of the table."""
    summary = run.newest.summary
    certified, estimated = _certified(summary), _estimated(summary)
    return [
        tag(
            "div",
            tag("div", tag(f"h{level}", "Certified"), _list(certified), class_="half certified"),
            tag("div", tag(f"h{level}", "Estimated"), _list(estimated), class_="half estimated"),
            class_="halves",
        ),
        tag(f"h{level}", "Notes to the table"),
        _list(notes(summary, LETTERS)),
    ]


def _list(items: list[str]) -> Markup:
    return tag("ul", [tag("li", item) for item in items])


def _certified(summary: Summary) -> list[str]:
    norm = NORMS.get(summary.norm, summary.norm)
    items = [
        f"The radius of each image: within that {norm} distance the mix keeps its class for every standard "
        "classifier g. Radii are rounded down.",
        "Certified accuracy: the share of these images that are right and have at least that radius.",
    ]
    if any(row.certificate == "lipschitz-constant" for row in summary.rows):
        items.append("All of it rests on the Lipschitz constant that was given; certmix does not prove it.")
    elif deterministic(summary):
        items.append("Nothing is drawn at random: there is no failure probability.")
    elif summary.failure_probability is not None:
        items.append(
            f"Each image's certificate is wrong with probability at most "
            f"{plain_decimal(summary.failure_probability)}, over the noise that was drawn."
        )
    return items


def _estimated(summary: Summary) -> list[str]:
    clean = (
        "Clean accuracies are exact on these images, and estimates for others."
        if deterministic(summary)
        else "Clean accuracy of h and of the mix: plug-in estimates from noisy votes, not certificates. "
        "That of g is exact on these images."
    )
    return [
        clean,
        "How any figure would move on other images: the 95 % Clopper-Pearson interval, if these images are a "
        "random sample. It does not contain the failure probability of the certificates.",
        "Robust accuracy itself lies between what is certified and the clean accuracy; how far above the "
        "certified share, these figures do not say: an attack (certmix attack) bounds it from above.",
    ]


def budget_facts(summary: Summary) -> Facts:
    """Return what the failure probability of one image means for all of them."""
    delta, images = summary.failure_probability, summary.images
    if delta is None or not images:
        return ()
    together = 1 - images * delta
    facts = [
        ("one image's certificate", f"wrong with probability at most {plain_decimal(delta)}"),
        (
            f"wrong certificates expected among {images:,} images",
            f"at most {ceil_digits(float(f'{images * delta:.12g}'), 3)}",
        ),
    ]
    if together > 0:
        facts.append(
            (
                f"all {images:,} certificates right at once",
                f"with probability at least {floor_digits(together, 3)}",
            )
        )
    return tuple(facts)


def row_title(row: CertifiedAccuracy) -> str:
    """Return a row's classifier and certificate in a few words."""
    return f"{row.classifier}, {certificate_label(row.certificate, LETTERS)}"
