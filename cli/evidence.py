"""`certmix evidence`: what a verification shows, as files for auditors and for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from certmix import guard
from certmix.runs.isolated import isolated
from certmix.tables.formats import FORMATS
from certmix.verification.request import VerifyRequest

from .options import DEVICE, ISOLATED, MODEL_TIMEOUT, PATH, format_option, options
from .verify import refuse_idle, verified

EVIDENCE = """\b
Examples:
  certmix evidence guarantee.toml --output evidence
  certmix evidence runs/RUN --output evidence --resample 20 --run-code

The folder holds an in-toto statement with the test result, a CycloneDX bill of
materials, an argument along AMLAS stage 5 with boxes to sign, the log of the
verification (JSON, JUnit), the proof file with the script that checks it, and
the report page. PASSED: a guarantee holds. WARNED: a run is what it says, and
was held against no requirement, or nothing was drawn again. FAILED: all else.
Exit codes are those of certmix verify. Signing is left to sigstore and DSSE
tools: the argument shows the command.
"""


@click.command("evidence", epilog=EVIDENCE)
@click.argument("target", metavar="GUARANTEE|RUN", type=PATH)
@click.option(
    "--output", type=PATH, metavar="FOLDER", default=Path("evidence"),
    help="A folder that does not exist, or is empty.",
)  # fmt: skip
@options(VerifyRequest, leave=("proof",), new_seed="drawn, and told in the argument")
@DEVICE
@MODEL_TIMEOUT
@ISOLATED
@format_option(*FORMATS)
def evidence(target: Path, output: Path, apart: bool, format_: str, **asked: Any) -> int:
    """Verify a guarantee or a run, and write the evidence of it into a folder.

    GUARANTEE and RUN are those of 'certmix verify', which this does first. No
    environment variable, user name or folder of a path is written down.
    """
    from certmix.assurance.pack import pack, prepared
    from certmix.tables import print_table

    refuse_idle(target, asked)
    request = prepared(target, output, VerifyRequest(**asked))
    given = request.as_dict()
    with guard.failing_closed():
        found = isolated(verified, target, given) if apart else verified(target, given)
    made = pack(found, request, output)
    print_table(made.table, format_)
    return int(made.exit_code)
