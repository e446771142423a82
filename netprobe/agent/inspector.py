"""The verb of a check, `inspect`: an agent of its own, for neither needs what the other one does."""

from netprobe.agent.conversation import Conversation, serve
from netprobe.agent.inspection import Inspection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netprobe.agent.conversation import Reply


class Inspector(Conversation):
    """The agent of a check."""

    def __init__(self) -> None:
        super().__init__()
        self._inspections: list[Inspection] = []
        self._verbs = {"inspect": self._inspect, "bye": self._bye}

    def _inspect(self, request: "dict[str, object]", reply: "Reply") -> None:
        self._inspections.append(Inspection(self._loop, request, reply))

    def _bye(self, _request: "dict[str, object]", reply: "Reply") -> None:
        reply({})
        self._loop.stop()

    def _leave(self) -> None:
        for inspection in self._inspections:
            inspection.end()


def main() -> None:
    """Run an agent of a check on stdin and stdout."""
    serve(Inspector)
