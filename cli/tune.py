"""`certmix tune`: gate, temperature of g and alpha for certified accuracy, chosen on tuning inputs."""

from __future__ import annotations

from typing import Any

import click

from certmix.certification.tuned import TuneRequest
from certmix.runs.settings import Option, divide
from certmix.runs.sources import Sources
from certmix.tables.formats import FORMATS

from .options import DEVICE, FRESH, MODEL_TIMEOUT, format_option, options
from .studies import made

TUNE = """\b
Examples:
  certmix tune --sigma 0.5 --at-radius 0.5
  certmix tune --sigma 0.5 --at-radius 0.5 --clean-accuracy 0.85
  certmix tune --sigma 0.25 --at-radius 0.25 --lose 5 --output tuned
  certmix tune --sigma 0.5 --at-radius 0.5 --data held-out.npz \\
      --standard nets.py:accurate --robust nets.py:noisy

A certificate stands whatever was chosen; an accuracy is honest only on inputs
that were not tuned on. certmix certify --tuned FILE refuses those.
"""


@click.command("tune", epilog=TUNE)
@options(
    TuneRequest, Sources,
    data=Option("Tuning inputs: ones that neither model was trained on.", shown="cifar10-tuning"),
)  # fmt: skip
@DEVICE
@MODEL_TIMEOUT
@click.option("--output", metavar="FOLDER", help="Run folder.  [default: runs/<identity>]")
@FRESH
@format_option(*FORMATS)
def tune(**given: Any) -> int:
    """Choose how to mix: which votes count, how sure g is, and alpha.

    Of h's votes those count that are sure enough (--gate of certmix certify),
    g is sharpened (--standard-temperature), and alpha is as large as clean
    accuracy allows. The plan, its front of certified against clean accuracy,
    and tuned.toml for certmix certify --tuned lie in the run folder. Nothing
    is certified here.
    """
    from certmix.studies.tune import DATA, tune

    (asked,) = divide(given, TuneRequest)
    given.setdefault("data", DATA)
    return made(tune, TuneRequest(**asked), given)
