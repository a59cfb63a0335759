"""Ids: UUIDs of version 7, increasing, different in every thread and forked child."""

from __future__ import annotations

import os
import threading
from uuid import UUID

from camora.ids import IdSource, child_id


def test_ids_are_increasing_uuids_of_version_7() -> None:
    make = IdSource()
    ids = [make() for _ in range(20_000)]
    assert ids == sorted(set(ids))
    for text in (ids[0], ids[4_097], ids[-1]):
        assert UUID(text).version == 7
        assert UUID(text).variant == "specified in RFC 4122"
        assert len(text) == 32


def test_ids_of_many_threads_differ() -> None:
    make, found = IdSource(), []
    threads = [threading.Thread(target=lambda: found.extend(make() for _ in range(5_000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 40_000


def test_a_forked_child_does_not_repeat_its_parents_randomness() -> None:
    make = IdSource()
    make()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, "".join(make()[16:] for _ in range(50)).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    text = os.read(reader, 65536).decode()
    os.close(reader)
    theirs = {text[start : start + 16] for start in range(0, len(text), 16)}
    assert len(theirs) == 50
    assert not theirs & {make()[16:] for _ in range(50)}


def test_ids_of_successors_are_derived_and_keep_the_time() -> None:
    parent = IdSource()()
    assert child_id(parent, "retry") == child_id(parent, "retry") != child_id(parent, "success")
    assert child_id(parent, "retry")[:12] == parent[:12]
    assert UUID(child_id(parent, "retry")).version == 8
