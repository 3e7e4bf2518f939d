"""minirosprompt: soft prompts for a frozen XLM-R, trained with group DRO, for classes named at
test time.

Letters in shape comments, everywhere: B batch, T tokens, P prompt vectors, D width, H heads,
V vocabulary, C classes, W label words, M their pieces, K neighbours, G groups; N texts.
"""


class UserError(ValueError):
    """Something a user can mend: a file, a flag. Scripts print its one line, exit with status 2."""

    def __init__(self, message):
        super().__init__(" ".join(message.split()))
