"""What is left out of evidence: folders, secrets of the environment, names of users and machines."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LEFT_OUT = "[left out]"
SECRET = re.compile(r"TOKEN|SECRET|PASS|KEY|CREDENTIAL|AUTH", re.IGNORECASE)
"""In the name of an environment variable whose value, of 8 characters or more, is no one else's business."""
WHO = ("USER", "LOGNAME", "USERNAME", "HOSTNAME", "COMPUTERNAME")
NOBODY = (
    "root", "user", "admin", "administrator", "runner", "ubuntu", "debian", "home", "test", "build",
    "jenkins", "docker", "nobody", "localhost", "certmix", "robust", "standard", "mixed", "data", "model",
)  # fmt: skip
"""Names of accounts and machines that tell of no one, or are words of ours."""
FOLDERS = re.compile(r"""(?<![\w.:/\\<-])(?:[A-Za-z]:|~)?[/\\](?:[^\s/\\'"<>|;,:]+[/\\])+""")
LOGIN = re.compile(r"(?<=://)[^/\s@]+@")


class Private:
    """Leaves out of texts what evidence may not tell; of `paths` that were given the last part is shown."""

    def __init__(self, paths: Iterable[str | Path]) -> None:
        forms: dict[str, str] = {}
        for given in paths:
            path = os.path.expanduser(given)
            for form in (str(given), path, os.path.abspath(path), os.path.realpath(path)):
                folder, name = os.path.split(form.rstrip("/\\"))
                if name and folder.strip("/\\."):
                    forms |= {os.path.join(folder, ""): "", form: name}
        for place in (Path.home(), Path.cwd(), tempfile.gettempdir()):
            for form in {str(place), os.path.realpath(place)} - {os.sep}:
                forms |= {os.path.join(form, ""): "", form: "."}
        self._known = sorted(forms.items(), key=lambda pair: -len(pair[0]))
        hidden = [value for name, value in os.environ.items() if SECRET.search(name) and len(value) >= 8]
        self._secrets = sorted(hidden, key=len, reverse=True)
        names = {os.environ.get(name, "") for name in WHO} | {platform.node(), Path.home().name}
        told = sorted(name for name in names if len(name) > 3 and name.lower() not in NOBODY)
        self._names = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, told))})(?!\w)") if told else None

    def known(self, text: str) -> str:
        """Return text without the paths and secrets that are known, whatever else it is made of."""
        for secret in self._secrets:
            text = text.replace(secret, LEFT_OUT)
        for path, name in self._known:
            text = text.replace(path, name)
        return text

    def text(self, text: str) -> str:
        """Return text that somebody gave, without all that is private."""
        text = LOGIN.sub("", FOLDERS.sub("", self.known(text)))
        return text if self._names is None else self._names.sub(LEFT_OUT, text)

    def plain(self, data: Any) -> Any:
        """Return plain data with the texts in it, keys as well, as of `text`."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, dict):
            return {self.text(str(key)): self.plain(value) for key, value in data.items()}
        return type(data)(map(self.plain, data)) if isinstance(data, list | tuple) else data
