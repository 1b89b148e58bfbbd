"""The exceptions that are not bugs: a mistake that a user can mend, and the wish that a run stops."""


class UserError(Exception):
    """Input that cannot be used: one clear line that names the file or option and the remedy.

    Scripts print it on stderr as ``error: …`` and leave with exit code 2, without a traceback.
    Anything else that escapes is a bug of ours and exits with 1.
    """


class OneProcessError(UserError):
    """A UserError that perhaps only this one of several processes has met, such as a GPU that is out of memory."""


class Preempted(Exception):
    """The run was asked to stop and has saved its state; the text says who asked."""
