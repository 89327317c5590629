import threading

from faos_core.worker_thread import WorkerThread


def test_pieces_are_done_in_order_by_one_thread_before_it_ends() -> None:
    """A database's writer that did two pieces at once, or left one undone, would lose what it acknowledged."""
    done: list[tuple[int, str]] = []
    worker = WorkerThread("worker")
    for number in range(100):
        worker.submit(lambda number=number: done.append((number, threading.current_thread().name)))

    worker.shutdown()

    assert done == [(number, "worker") for number in range(100)]
