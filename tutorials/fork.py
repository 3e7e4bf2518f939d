"""Takes one of FORK.md's diffs, or takes it out again; on Windows as well.

    python tutorials/fork.py 3             # change 3 is made to the files
    python tutorials/fork.py 3 --reverse   # and taken back
    python tutorials/fork.py 3 --show      # printed only
"""
import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def diffs():
    text = (ROOT / "tutorials/FORK.md").read_text(encoding="utf-8")
    return re.findall(r"^```diff\n(.*?)^```$", text, re.M | re.S)


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("number", type=int, choices=range(1, len(diffs()) + 1),
                   help="of the change, as on the page")
    p.add_argument("--reverse", action="store_true", help="take it out again")
    p.add_argument("--show", action="store_true", help="print it, change nothing")
    args = p.parse_args()
    diff = diffs()[args.number - 1]
    if args.show:
        sys.stdout.buffer.write(diff.encode())
        return
    # A shell's pipe may change line ends and letters on the way; this one does not.
    command = ["git", "apply", *(["--reverse"] if args.reverse else []), "-"]
    # In a copy that lies within another repository, git would leave all files out without a word.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(ROOT.parent)}
    if subprocess.run(command, input=diff.encode(), cwd=ROOT, env=environment).returncode:
        sys.exit(f"fork.py: change {args.number} does not fit the files as they are (git status "
                 "shows what you have changed)")


if __name__ == "__main__":
    main()
