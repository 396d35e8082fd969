"""The one error the testbed raises for what a user can mend."""


class TestbedError(Exception):
    """Something the testbed needs is missing, taken, or did not happen in time.

    `what` says what happened and to what; `remedy` says what to do next. Printed, it is one line.
    """

    __test__ = False  # pytest would otherwise try to collect the name

    def __init__(self, what: str, remedy: str) -> None:
        """Both halves without a full stop."""
        super().__init__(f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy
