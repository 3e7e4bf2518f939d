"""What the scripts' command lines share: types of arguments, saved settings, errors in one line."""
import argparse
import io
import os
import sys
import warnings
from pathlib import Path

from tqdm import tqdm

from .. import UserError
from .files import clean, listed, read_json
from .start import heed_interrupts


class Parser(argparse.ArgumentParser):
    """argparse, with its errors in one line, and without guessing at shortened flags."""

    def __init__(self, **options):
        super().__init__(**options, allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def parse_args(self, args=None, namespace=None):
        found = super().parse_args(args, namespace)
        for name, value in vars(found).items():
            # A path or a setting, such as Python makes of bytes that are not text. (Texts may.)
            readable = str(value).encode("utf-8", "replace").decode()
            if name != "text" and readable != str(value):
                self.error(f"--{name}: {readable} is not UTF-8 (or this locale needs PYTHONUTF8=1)")
        return found

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def run(main):
    """Calls main(). What a user can mend ends in one line and status 2.

    That is a UserError, an OSError, and too little memory.
    """
    heed_interrupts()
    if sys.stderr is None:  # closed; print would take standard output instead
        sys.stderr = open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Files and pipes get UTF-8, whatever the locale says; a terminal's own encoding stays.
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            if sys.stdout is None:
                raise UserError("standard output is closed: nothing could be printed")
            main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (UserError, OSError) as error:
        message = error
        if isinstance(error, OSError) and error.filename:
            message = f"{error.filename}: {error.strerror}"
        end(2, f"{script()}: {message}")
    except (MemoryError, RuntimeError) as error:
        # PyTorch says so of the processor's memory and of a GPU's.
        words = ("can't allocate memory", "out of memory")
        if isinstance(error, RuntimeError) and not any(of in str(error) for of in words):
            raise
        end(2, f"{script()}: out of memory: try --dtype bfloat16, shorter texts, or, in training, "
               "a smaller --batch-size")
    except KeyboardInterrupt as stop:
        end(130, f"interrupted: {stop}" if stop.args else "interrupted")


def show_warning(message, *_):
    """Ours in a line, as errors are."""
    tqdm.write(f"{script()}: {message}", file=sys.stderr)


def script():
    return os.path.basename(sys.argv[0])


class Once(argparse.Action):
    """Of a flag that names what is read: given again, the first value would be lost.

    Elsewhere the last value counts, as everywhere: so one can overrule a flag of a longer command.
    """

    def __call__(self, parser, namespace, value, flag=None):
        if getattr(namespace, self.dest) is not None:
            parser.error(f"argument {flag}: given twice, and the first would be lost: leave one "
                         "out")
        setattr(namespace, self.dest, value)


def end(status, message):
    for bar in list(tqdm._instances):  # a bar that is still there would share its line
        bar.close()
    print(message, file=sys.stderr)
    sys.exit(status)


# ---- settings that a run or a prompt was saved with ----------------------------------------------

def refuse(parser, argv, flags, why):
    """Ends with an error if one of these flags was given, even with its default's value."""
    for flag in given(parser, argv, flags):
        parser.error(f"{flag} does nothing {why}: leave it out")


def given(parser, argv, flags):
    """-> those of the flags ("lr") that were given, even with their default's value, as "--lr"."""
    # argparse leaves alone what a namespace has already.
    found = argparse.Namespace(**dict.fromkeys(action.dest for action in parser._actions))
    parser.parse_args(argv, found)
    return [f"--{flag.replace('_', '-')}" for flag in flags if getattr(found, flag) is not None]


def refuse_idle(parser, argv, objective):
    """For train.py's flags that nothing reads, with these objectives."""
    if "group-dro" not in objective:
        refuse(parser, argv, ["eta", "adjustment"], "without --objective group-dro")
    if not objective:  # a command that has trained may well be repeated so: no error
        training = [a.dest for group in parser._action_groups if group.title == "training"
                    for a in group._group_actions if a.dest != "objective"]
        idle = given(parser, argv, training)
        if idle:
            warnings.warn(f"--objective without a value trains nothing: {listed(idle)} "
                          f"{'does' if len(idle) == 1 else 'do'} nothing")


def resumed(parser, argv, run):
    """The arguments that a run was begun with, from its config.json. -> argparse.Namespace

    argv: those given now, of which none but --resume may be: the run goes on as it began.
    """
    config = os.path.join(run, "config.json")
    others = [a.dest for a in parser._actions if a.dest not in ("help", "resume")]
    refuse(parser, argv, others, f"with --resume, which goes on under the run's own ({config})")
    return argparse.Namespace(**check_settings(parser, read_json(config), config))


def check_settings(parser, settings, path):
    """{flag: value} from a file that anybody may have changed -> the same, for all flags.

    The parser's own arguments say what each may be, so a new flag needs nothing here; in a file
    older than the flag it has its default. Raises UserError for an unknown flag or a bad value.
    """
    actions = {a.dest: a for a in parser._actions if a.default is not argparse.SUPPRESS}
    unknown = sorted(settings.keys() - actions.keys())
    if unknown:
        raise UserError(f"{path}: written by another version ({listed(unknown)}); train anew")
    checked = {}
    for name, action in actions.items():
        checked[name] = settings.get(name, action.default)
        if not fits(checked[name], action):
            raise UserError(f"{path}: {name} is {checked[name]!r}; train anew")
    return checked


def fits(value, action):
    """Could this argument have had this value?"""
    if action.nargs == 0:  # a boolean flag
        return isinstance(value, bool)
    if type(value) is type(action.default) and value == action.default:
        return True
    if value is None:
        return False
    if action.type is not names and action.nargs in (None, "?"):
        return fits_one(value, action)
    if not isinstance(value, list) or not (value or action.nargs == "*"):
        return False
    if isinstance(action.nargs, int) and len(value) != action.nargs:  # a pair, say
        return False
    return all(fits_one(one, action) for one in value)


def fits_one(value, action):
    if action.choices is not None and value not in action.choices:
        return False
    if action.type in (None, str, names, some, whole_path):
        return isinstance(value, str)
    if isinstance(value, (str, bool)):
        return False
    try:
        return action.type(str(value)) == value
    except (ValueError, TypeError, argparse.ArgumentTypeError):
        return False


def add_device(parser):
    """--device and --dtype, for runtime.pick_device."""
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                        help="(default: cuda where there is one; there the last digits may differ "
                        "from run to run, with the same seeds: sums have no fixed order)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32",
                        help="of the encoder (default: float32)")


# ---- types of arguments --------------------------------------------------------------------------

LARGEST = 1e30  # larger ones overflow somewhere, and nobody means them

def names(text):
    """"a, b" -> ["a", "b"]"""
    found = [name.strip() for name in clean(text).split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError("at least one name is needed")
    return list(dict.fromkeys(found))


def some(text):
    if not text.strip():
        raise argparse.ArgumentTypeError("nothing is given")
    return text


def some_path(text):
    """Not an empty text: that would be the folder one is in."""
    return Path(some(text))


def whole_path(text):
    """A folder's whole path, to be found from wherever the run is used; or a name, as it is."""
    some(text)
    if text in ("minitopics", "pocket") or not os.path.isdir(text):
        return text
    return os.path.realpath(text)


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
    if not 0 <= number <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {LARGEST:.0e}")
    return number


def above_zero(text):
    if nonnegative(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return float(text)


def below_one(text):
    if nonnegative(text) >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below 1")
    return float(text)
