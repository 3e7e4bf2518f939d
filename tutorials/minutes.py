"""The minutes that each notebook takes to read, exercises apart.

    python tutorials/minutes.py
"""
import json
from pathlib import Path

# Cells that a student need not read: they are collapsed.
COLLAPSED = {"check": "whether what the text claims is so",
             "checker": "what an exercise is tried on",
             "plot": "how a picture is drawn, or a table written",
             "known": "functions that an earlier notebook has shown"}

# What reading takes, exercises apart. Nobody has been timed: these are guesses, of slow readers.
WORDS_A_MINUTE = 130
SECONDS_A_LINE = 10
MINUTES_A_PREDICTION = 1


def reading_minutes(notebook):
    """A notebook as a dict -> the minutes that its text, code and predictions take"""
    words, lines, predictions = 0, 0, 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        tags = set(cell["metadata"].get("tags", []))
        if cell["cell_type"] == "markdown":
            words += len(source.split())
            predictions += source.count("**Predict")
        elif not tags & {"setup", "exercise", *COLLAPSED}:
            lines += sum(bool(line.strip()) for line in source.split("\n"))
    return (words / WORDS_A_MINUTE + lines * SECONDS_A_LINE / 60
            + predictions * MINUTES_A_PREDICTION)


def main():
    for path in sorted(Path(__file__).resolve().parent.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        print(f"{path.name}: {reading_minutes(notebook):.0f}")


if __name__ == "__main__":
    main()
