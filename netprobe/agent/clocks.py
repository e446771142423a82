"""What another machine's clock says of this host's, or of any other one."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_ROUNDING_S = 0.001


class Clock:
    """
    By how many seconds a clock is `ahead_s` of another one, and with what uncertainty.

    They were compared several times, one comparison behind the other: what the other clock said, and what
    this one said a little later. So it said that before the other one had reached the next comparison's time.
    The uncertainty is infinite where that does not tell, because there is no next one, or because the
    comparisons contradict each other: then a clock was set meanwhile.
    """

    def __init__(self, comparisons: "Sequence[tuple[float, float]]") -> None:
        pairs = list(zip(comparisons, comparisons[1:]))
        most = min((here - before for (before, here), _next in pairs), default=0.0)
        least = max((here - after for (_before, here), (after, _here) in pairs), default=0.0)
        self.ahead_s = (most + least) / 2
        self.uncertainty_s = max(0.0, most - least) / 2
        if not pairs or least > most + _ROUNDING_S:
            self.uncertainty_s = float("inf")

    def doubt(self, allowed_s: float) -> str:
        """Why nobody knows to so many seconds what time it is; "" where somebody does."""
        if self.uncertainty_s <= allowed_s:
            return ""
        if self.uncertainty_s < float("inf"):
            return f"its clock is known to {self.uncertainty_s:.1f} s only, and {allowed_s:.1f} s are allowed"
        return "its clock was not compared with another one often enough, or one of them was set meanwhile"
