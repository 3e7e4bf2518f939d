"""The tables that train.py and eval.py print."""

FEW = 20  # an interval from fewer sentences than that is drawn from nearly nothing


def format_table(summary, cells):
    """methods x cells, in per cent, mean ± sd over seeds. cells: metrics.CELLS"""
    there = [f"{which} {metric}" for which, metric in cells]
    there = [name for name in there if any(name in of for of in summary.values())]
    head = [name.split()[0] for name in there]
    for i in range(len(head) - 1, 0, -1):  # a name once, above the first of its columns
        if head[i] == head[i - 1]:
            head[i] = ""
    left = max(15, 1 + max(map(len, summary)))  # the widest method's name
    lines = [" " * left + "".join(f"{text:>11}" for text in head),
             " " * left + "".join(f"{name.split()[1]:>11}" for name in there)]
    for method, of in summary.items():
        line = method.ljust(left)
        for name in there:
            text = ""
            if name in of:
                text = f"{100 * of[name]['mean']:.1f}"
                if of[name]["sd"] is not None:
                    text += f" ±{100 * of[name]['sd']:.1f}"
            line += f"{text:>11}"
        lines.append(line)
    return "\n".join(lines)


def format_gains(summary):
    """A line for every soft prompt: what it gains over the hard prompt.

    On unseen classes in target languages; where there are none, on all texts.
    """
    lines = []
    for method, of in summary.items():
        if "target unseen gain" in of:
            worst = of["worst unseen"]["mean"] - summary["hard"]["worst unseen"]["mean"]
            lines.append(f"{method} against hard, unseen classes: "
                         f"{points(of['target unseen gain'], 'target languages')}, "
                         f"worst {100 * worst:+.1f}")
        elif "all gain" in of:
            lines.append(f"{method} against hard, all classes: "
                         f"{points(of['all gain'], 'all languages')}")
    return "\n".join(lines) + "\n"


def points(gain, where):
    text = (f"{100 * gain['mean']:+.1f} points in {where} (95 %: {100 * gain['low']:+.1f} to "
            f"{100 * gain['high']:+.1f}")
    if gain["sentences"] < FEW:
        text += f"; of {gain['sentences']} sentences, which says nothing of others"
    return text + ")"


def format_averages(title, averages):
    """kinds of languages x methods, in per cent. averages: of metrics.average_by"""
    methods = [name for name in next(iter(averages.values())) if name != "languages"]
    lines = [title, f"{'':15}{'languages':>11}" + "".join(f"{name:>16}" for name in methods)]
    for kind, of in averages.items():
        numbers = "".join(f"{100 * of[method]:16.1f}" for method in methods)
        lines.append(f"{kind:15}{of['languages']:11}{numbers}")
    return "\n".join(lines)
