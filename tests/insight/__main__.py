"""``make insight-report SEEDS=101-106``: how well detection finds what the generator hides."""

import sys
from argparse import ArgumentParser

from tests.insight.organizations import organizations
from tests.insight.report import failures, text
from tests.insight.scoring import Score
from tests.insight.watching import findings_of


def main() -> int:
    """Print the report; 1 if something required is not reached."""
    parser = ArgumentParser(prog="make insight-report", description=__doc__)
    parser.add_argument("--seeds", default="101-106", help="one or more: 101-106, or 7,9")
    parser.add_argument("--tenants", type=int, default=300, help="organizations of each seed")
    parser.add_argument("--examples", action="store_true", help="also print false findings")
    given = parser.parse_args()
    score = Score()
    for seed in _seeds(given.seeds):
        for organization in organizations(seed, given.tenants):
            score.add(organization, findings_of(organization))
        print(f"seed {seed} done", file=sys.stderr, flush=True)
    print(text(score))
    if given.examples:
        print("", *score.examples, sep="\n")
    missed = failures(score)
    print("", *(f"not reached: {one}" for one in missed), sep="\n")
    return 1 if missed else 0


def _seeds(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


if __name__ == "__main__":
    sys.exit(main())
