"""`python -m server.access`: make a token, hash one, check a policy file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from server.access.policy_file import read_policy
from server.access.tokens import MIN_LENGTH, digest_of, new_token, shown


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m server.access", description="Tokens and policy files.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("token", help="print a new token, and on the next line what the policy file keeps of it")
    commands.add_parser("hash", help="read a token from standard input, and print what the policy file keeps of it")
    check = commands.add_parser("check", help="say whether a policy file can be used, and what it allows")
    check.add_argument("file", type=Path)
    given = parser.parse_args(argv)
    match given.command:
        case "token":
            token = new_token()
            print(token, shown(digest_of(token)), sep="\n")
        case "hash":
            return _hash(sys.stdin.readline().strip())
        case _:
            return _check(given.file)
    return 0


def _hash(token: str) -> int:
    """Not from the command line, which other processes see."""
    if len(token) < MIN_LENGTH:
        print(f"a token must have {MIN_LENGTH} characters at least: `python -m server.access token`", file=sys.stderr)
        return 1
    print(shown(digest_of(token)))
    return 0


def _check(file: Path) -> int:
    try:
        policy, _ = read_policy(file)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    for principal in (*policy.principals, policy.anonymous):
        grants = [f"{', '.join(sorted(g.apis))} of {', '.join(g.models) or 'no model'}" for g in principal.grants]
        print(f"{principal.name}: {'; '.join(grants) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
