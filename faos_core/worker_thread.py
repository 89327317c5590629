"""A thread that does what it is handed, piece by piece."""

import queue
import threading
from collections.abc import Callable

Piece = Callable[[], None]


class WorkerThread:
    """As an executor with one thread, but nobody can wait for a piece here: that costs more than small work does.

    Make it, `submit` from any thread, `shutdown` once. What a piece raises ends the thread: it must not.
    """

    def __init__(self, name: str) -> None:
        self._pieces: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, piece: Piece) -> None:
        self._pieces.put(piece)

    def shutdown(self) -> None:
        """Returns when all that was submitted before is done."""
        self._pieces.put(None)
        self._thread.join()

    def _run(self) -> None:
        while piece := self._pieces.get():
            piece()
            del piece  # it may hold much, and the next may be long in coming
