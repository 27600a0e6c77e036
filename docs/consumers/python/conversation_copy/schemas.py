"""The published schemas: fetched once from where `ce_dataschema` points, and kept, since a version never changes."""

from __future__ import annotations

import json
import sqlite3
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator

from .records import Data, Record

PATIENCE_S = 120.0
"""How long a server that does not answer is asked again."""
PAUSE_S = 1.0
REQUEST_S = 10.0


class Invalid(Exception):
    """A record breaks the schema that it names: better no copy than a wrong one."""


class Schemas:
    """Validates the data of records."""

    def __init__(self, database: sqlite3.Connection, server: str) -> None:
        """`server` is where Parlance answers.

        A record names the address that the server has for the world, which need not lead anywhere from here; and what
        a record says is no reason to call anybody. So only the path is taken from it.
        """
        self._database = database
        self._server = server.rstrip("/")
        self._validators: dict[str, Draft202012Validator] = {}

    def check(self, record: Record, data: Data) -> None:
        """Raises `Invalid` where the data are not what their schema says; members unknown to it may be there."""
        errors = self._validator(record).iter_errors(data)
        for error in errors:
            # Where, and by which rule; never the content.
            place = "/".join(str(step) for step in error.absolute_path)
            raise Invalid(f"{record}: /{place} breaks `{error.validator}` of {record.dataschema}")

    def _validator(self, record: Record) -> Draft202012Validator:
        path = urlsplit(record.dataschema).path
        if path not in self._validators:
            if not path.startswith("/schemas/"):
                raise Invalid(f"{record}: {record.dataschema} is no schema of Parlance's")
            self._validators[path] = Draft202012Validator(json.loads(self._text(path)))
        return self._validators[path]

    def _text(self, path: str) -> str:
        row = self._database.execute("SELECT schema FROM schemas WHERE path = ?", (path,)).fetchone()
        if row is not None:
            return str(row[0])
        text = fetch(self._server + path)
        self._database.execute("INSERT OR IGNORE INTO schemas (path, schema) VALUES (?, ?)", (path, text))
        return text


def fetch(url: str) -> str:
    """What is at an address, asked for until it is there or patience ends."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=REQUEST_S) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            # Only what may pass by itself is asked for again.
            if (error.code < 500 and error.code != 429) or time.monotonic() > end:
                raise
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(PAUSE_S)
