"""One self-contained HTML page of runs: words, tables, curves and pictures, no network.

Everything that is shown comes in finished as the values of
`certmix.page.values`; every text is escaped where it is written.
"""

from certmix.page.document import GENERATOR, page
from certmix.page.values import CertifiedRun, Command, Group, Images, Result, Shown, StudyRun

__all__ = [
    "GENERATOR",
    "CertifiedRun",
    "Command",
    "Group",
    "Images",
    "Result",
    "Shown",
    "StudyRun",
    "page",
]
