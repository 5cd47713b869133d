"""What faults do to certmix: killed commands, changed runs, damaged files.

    python benchmarks/faults.py kills --kills 100
    python benchmarks/faults.py planted --seeds 20
    python benchmarks/faults.py inputs --cases 10000

Each prints a table, bounded by numbers and --minutes; exit code 1 says that it saw what must not be.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # forks and threads do not go together
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def chosen(asked: str | None, known: list[str]) -> list[str]:
    """Return the names among the known that hold one of the words, all by default."""
    words = asked.split(",") if asked else [""]
    if found := [name for name in known if any(word in name for word in words)]:
        return found
    raise SystemExit(f"{asked}: none of {', '.join(known)}")


def kills(asked: argparse.Namespace) -> bool:
    """Disturb commands, repeat them and compare."""
    import killing

    good = True
    print(
        "| command | disturbed by | times | exit codes | repeated | samples lost | drawn again | differ |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as folder:
        names = chosen(asked.only, list(killing.COMMANDS))
        for name, how, found in killing.kill(
            names, asked.kills, asked.seed, Path(folder), 60 * asked.minutes
        ):
            codes = ", ".join(f"{code}" for code in sorted(found.codes))
            numbers = f"{found.repeats} | {found.lost} | {found.drawn_again} | {len(found.wrong)}"
            print(f"| `{name}` | {how} | {found.disturbed} | {codes} | {numbers} |", flush=True)
            for told, times in Counter(found.wrong).items():
                print(f"{name}, {how}, {times} times: {told}", file=sys.stderr, flush=True)
            good &= not (found.wrong or found.lost or found.drawn_again)
    return good


def planted(asked: argparse.Namespace) -> bool:
    """Plant faults in runs and verify them."""
    import planting

    from certmix.bounds.clopper_pearson import interval
    from certmix.verification.request import VerifyRequest

    request = VerifyRequest(
        device="cpu", resample=asked.resample, resample_samples=asked.resample_samples, run_code=True
    )
    names = chosen(asked.only, list(planting.faults(asked.samples)))
    seeds = range(1 + asked.seed, 1 + asked.seed + asked.seeds)
    with tempfile.TemporaryDirectory() as folder:
        found = planting.plant(
            names, seeds, Path(folder), inputs=asked.inputs, samples=asked.samples, goal=asked.goal,
            asked=request, seconds=60 * asked.minutes,
        )  # fmt: skip
    print("| fault | found | share | 95 % | by |\n| --- | --- | --- | --- | --- |")
    for name, seen in found.items():
        low, high = interval(seen.caught, seen.seeds)
        by = ", ".join(check for check, _ in seen.by.most_common(3))
        share = f"{seen.caught / seen.seeds:.0%} | {low:.0%} to {high:.0%}"
        print(f"| {name} | {seen.caught} of {seen.seeds} | {share} | {by} |")
    return not any(seen.caught or seen.unchecked for name, seen in found.items() if name == planting.HONEST)


def inputs(asked: argparse.Namespace) -> bool:
    """Hand damaged files to all readers."""
    import fuzzing

    good = True
    print("| reader | inputs | read | refused in a line | else | most memory | longest |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    names = chosen(asked.only, list(fuzzing.READERS))
    for name, found in fuzzing.read_damaged(names, asked.cases, asked.seed, 60 * asked.minutes):
        numbers = f"{found.cases:,} | {found.read:,} | {found.refused:,} | {len(found.wrong)}"
        print(f"| {name} | {numbers} | {found.megabytes:.0f} MB | {found.seconds:.2f} s |", flush=True)
        for told, times in Counter(found.wrong).items():
            print(f"{name}, {times} times: {told}", file=sys.stderr, flush=True)
        good &= not found.wrong
    return good


def main() -> int:
    """Do one of the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(required=True)
    for run in (kills, planted, inputs):
        one = parts.add_parser(run.__name__, help=run.__doc__)
        one.set_defaults(run=run)
        one.add_argument("--only", metavar="WORD,WORD", help="what has one of these words in its name")
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--minutes", type=float, default=60.0, help="after which nothing new is begun")
    numbers = {
        "kills": {"kills": 100},
        "planted": {"seeds": 20, "inputs": 24, "samples": 2000, "resample": 5, "resample-samples": 1000},
        "inputs": {"cases": 10_000},
    }
    for part, options in numbers.items():
        for name, default in options.items():
            parts.choices[part].add_argument(f"--{name}", type=int, default=default)
    parts.choices["planted"].add_argument("--goal", choices=["fixed", "radius"], default="radius")
    asked = parser.parse_args()
    return 0 if asked.run(asked) else 1


if __name__ == "__main__":
    sys.exit(main())
