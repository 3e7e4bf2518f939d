"""What the scripts' command lines share: types of arguments, and errors in one line with exit status 2."""
import argparse
import os
import sys

from tqdm import tqdm

from . import UserError
from .tokenizer import clean


class Parser(argparse.ArgumentParser):
    """argparse, with its errors in one line, and without guessing at shortened flags."""

    def __init__(self, **options):
        super().__init__(**options, allow_abbrev=False)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def run(main):
    """Calls main(); what a user can mend (UserError, OSError) ends in one line on stderr and exit status 2."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (UserError, OSError) as error:
        message = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        end(2, f"{sys.argv[0].rsplit('/', 1)[-1]}: {message}")
    except KeyboardInterrupt as stop:
        end(130, f"interrupted{': ' * bool(stop.args)}{stop}")


def end(status, message):
    for bar in list(tqdm._instances):  # a bar that is still there would share its line with the message
        bar.close()
    print(message, file=sys.stderr)
    sys.exit(status)


def check_settings(parser, settings, path):
    """settings: {flag: value} from a file that anybody may have changed -> themselves. Raises UserError for a bad value."""
    for action in parser._actions:
        if action.dest in settings:
            value, several = settings[action.dest], action.nargs == "+" or action.type is names
            try:
                if value is None and action.default is None:
                    continue
                if isinstance(value, list) != several or several and not value:
                    raise ValueError
                for one in value if several else [value]:
                    if action.choices and one not in action.choices:
                        raise ValueError
                    if action.type in (None, names) and not isinstance(one, str):
                        raise ValueError
                    if action.type not in (None, names) and (isinstance(one, (str, bool)) or action.type(str(one)) != one):
                        raise ValueError
            except (ValueError, TypeError, argparse.ArgumentTypeError):
                raise UserError(f"{path}: {action.dest} is {value!r}; start a new run") from None
    return settings


def names(text):
    found = [name.strip() for name in clean(text).split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError("at least one name is needed")
    return list(dict.fromkeys(found))


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def whole(text):
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^63 - 1")
    return int(text)


def nonnegative(text):
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return number


def below_one(text):
    if not nonnegative(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below 1")
    return float(text)
