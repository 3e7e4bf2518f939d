"""A run's results as a picture (SVG): language by language and method by method."""
from html import escape

import numpy as np

WIDTH, LINE, TOP = 420, 22, 60  # pixels: of 100 %, of a language, above the first one
SHAPES = [  # told apart in grey too; methods beyond the fifth begin again
    ('<path d="M-4,-4 L4,4 M-4,4 L4,-4" stroke="{c}" stroke-width="1.6"/>', "#888888"),
    ('<circle r="4" fill="{c}"/>', "#000000"),
    ('<path d="M0,-5 L5,0 L0,5 L-5,0 Z" fill="{c}"/>', "#c06000"),
    ('<path d="M0,-5 L5,4 L-5,4 Z" fill="{c}"/>', "#0070b0"),
    ('<rect x="-4" y="-4" width="8" height="8" fill="none" stroke="{c}"/>', "#208020"),
]


def draw(rows, names, chance):
    """-> SVG text: a line a language, a mark a method (mean over seeds), a whisker of ± sd.

    rows: of results.json; names: {code: a language's name}; chance: of guessing, 0 to 1.
    Accuracy on unseen classes, or on all where nothing is unseen.
    """
    metric = "unseen" if any(row["unseen"] is not None for row in rows) else "all"
    methods = list(dict.fromkeys(row["method"] for row in rows))
    role = {row["lang"]: row["role"] for row in rows}
    labels = {lang: f"{names.get(lang, lang)} ({role[lang]})" for lang in role}
    values = {}  # (method, language) -> one number a seed, in %
    for row in rows:
        if row[metric] is not None:
            values.setdefault((row["method"], row["lang"]), []).append(100 * row[metric])

    def height(lang):  # sources last, and the best language of the last method first
        return role[lang] == "source", -np.mean(values.get((methods[-1], lang), 0))

    left = 30 + 7 * max(map(len, labels.values()))
    bottom = TOP + LINE * len(role)
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + WIDTH + 30}" '
           f'height="{bottom + 50}" font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="white"/>']
    x = left
    for i, method in enumerate(methods):
        svg.append(mark(i, x, 20) + text(x + 10, 24, method))
        x += 40 + 7 * len(method)
    for percent in (0, 20, 40, 60, 80, 100):
        x = left + WIDTH * percent / 100
        svg.append(f'<path d="M{x},{TOP} V{bottom}" stroke="#dddddd"/>')
        svg.append(text(x, bottom + 16, percent, "middle"))
    x = left + WIDTH * chance
    svg.append(f'<path d="M{x:.1f},{TOP} V{bottom}" stroke="#888888" stroke-dasharray="2 3"/>')
    svg.append(text(x, TOP - 6, "chance", "middle"))
    svg.append(text(left + WIDTH / 2, bottom + 36, f"accuracy on {metric} classes, %", "middle"))
    for n, lang in enumerate(sorted(role, key=height)):
        middle = TOP + LINE * n + LINE / 2
        svg.append(text(left - 12, middle + 4, labels[lang], "end"))
        for i, method in enumerate(methods):
            of = values.get((method, lang))
            if of:
                x = left + WIDTH * np.mean(of) / 100
                y = middle + 10 * ((i + 0.5) / len(methods) - 0.5)  # side by side, or they overlap
                if len(of) > 1:
                    sd = WIDTH * np.std(of, ddof=1) / 100
                    svg.append(f'<path d="M{x - sd:.1f},{y:.1f} H{x + sd:.1f}" '
                               f'stroke="{SHAPES[i % len(SHAPES)][1]}"/>')
                svg.append(mark(i, x, y))
    return "\n".join(svg) + "\n</svg>\n"


def mark(i, x, y):
    shape, colour = SHAPES[i % len(SHAPES)]
    return f'<g transform="translate({x:.1f},{y:.1f})">{shape.format(c=colour)}</g>'


def text(x, y, words, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(str(words))}</text>'
