"""`python -m conversation_copy run | dump | forget`"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from . import views
from .apply import Incomplete
from .reader import Interrupted
from .run import Copier, Lost
from .schemas import Invalid, Schemas
from .store import Store

log = logging.getLogger("conversation_copy")


def main() -> int:
    """Does as the command line says."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    arguments = command_line().parse_args()
    store = Store(arguments.file)
    if arguments.command == "dump":
        return dump(store, arguments.user)
    with alone(arguments.file):
        if arguments.command == "forget":
            store.forget()
            return 0
        return run(store, arguments)


def run(store: Store, arguments: argparse.Namespace) -> int:
    """Keeps the copy; 1 where it cannot be kept as it should be."""
    copier = Copier(store, Schemas(store.database, arguments.server))
    try:
        copier.run(arguments.brokers, arguments.once)
    except (Incomplete, Interrupted, Invalid, Lost, OSError, sqlite3.Error) as error:
        log.error("the copy stands where it was: %s", error)
        return 1
    finally:
        log.info("records: %s", dict(copier.taken))
    return 0


def dump(store: Store, user_id: str | None) -> int:
    """Prints what one user sees, or what each does, as the query API would answer."""
    # One transaction: what is printed is the copy as it was at one moment.
    with store.transaction():
        seen = views.of_everybody(store.database) if user_id is None else views.of_user(store.database, user_id)
    json.dump(seen, sys.stdout, ensure_ascii=False, indent=2)
    print()
    return 0


@contextmanager
def alone(path: str) -> Iterator[None]:
    """Lets one process write a copy: the lock goes with it, however it ends."""
    with open(path + ".lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another process keeps {path}")
        yield


def command_line() -> argparse.ArgumentParser:
    """What may be asked for."""
    parser = argparse.ArgumentParser(prog="conversation_copy", description=__doc__)
    parser.add_argument("--file", default="conversations.sqlite", help="where the copy is (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    run_ = commands.add_parser("run", help="keep the copy")
    run_.add_argument(
        "--brokers", default=os.environ.get("KAFKA_BROKERS", "localhost:9092"), help="Kafka (%(default)s)"
    )
    run_.add_argument(
        "--server",
        default=os.environ.get("PARLANCE_URL", "http://localhost:8080"),
        help="where Parlance serves its schemas (%(default)s)",
    )
    run_.add_argument("--once", action="store_true", help="until the end that the topics have now")
    dump_ = commands.add_parser("dump", help="print the copy as the query API shows it")
    dump_.add_argument("--user", help="only what this user sees")
    commands.add_parser("forget", help="have everything read again, over the copy that is there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
