"""minirosprompt: soft prompts for a frozen XLM-R, trained with group DRO, for classes named at test time.

Shape letters, everywhere: B batch, T tokens, P prompt vectors, D width, H heads, V vocabulary, C classes,
K neighbours, G groups.
"""


class UserError(ValueError):
    """Something a user can mend (a file, a flag). Scripts print its one line and exit with status 2."""

    def __init__(self, message):
        super().__init__(" ".join(message.split()))
