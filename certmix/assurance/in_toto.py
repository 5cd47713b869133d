"""An in-toto Statement v1 whose predicate is a test result v0.1: github.com/in-toto/attestation, spec/."""

from __future__ import annotations

from typing import Any

from certmix.assurance.facts import Facts
from certmix.files import digest_of
from certmix.verification.checks import Outcome

STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"


def statement_of(facts: Facts, files: dict[str, bytes]) -> dict[str, Any]:
    """Return the statement: models, data and run as subjects, and all `files` by their digests."""
    settings = {name: facts.described[name] for name in ("request", "sources")} | {"verification": facts.how}
    configuration = [_resource(name, digest_of(told), annotations=told) for name, told in settings.items()]
    if facts.guarantee is not None:
        configuration.insert(0, _resource(*facts.guarantee, mediaType="application/toml"))
    unchecked = facts.names(Outcome.UNCHECKED)
    return {
        "_type": STATEMENT,
        "subject": [
            _resource(f"{one.role}: {one.name}", one.digest, annotations={"digestOf": one.of})
            for one in facts.artefacts
        ],
        "predicateType": TEST_RESULT,
        "predicate": {
            "result": facts.result,
            "configuration": configuration,
            "passedTests": facts.names(Outcome.HOLDS),
            "warnedTests": list(facts.doubts),
            "failedTests": facts.names(Outcome.FAILS) + unchecked,
            "certmix": {
                "resultMeans": facts.meaning,
                "uncheckedTests": unchecked,
                "evidence": [_resource(name, digest_of(files[name])) for name in sorted(files)],
            },
        },
    }


def _resource(name: str, digest: str, **more: Any) -> dict[str, Any]:
    """Return a ResourceDescriptor; of settings the digest is that of their JSON with sorted keys."""
    return {"name": name, "digest": {"sha256": digest}, **more}
