"""The states of all jobs, in SQLite.

What was asked of a job, and how it ended, is in its folder as well: a row, or a whole database, that cannot be read is
made again from there, and no job is lost.
"""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from loopwright.errors import StorageError
from loopwright.server.jobs import ENDED, Job

__all__ = ["Store"]

FORMAT = 1
# how long to wait for another process that has locked the database, in milliseconds
_PATIENCE = 2_000
# what no damage has made of the name of a job
_IS_NAME = "typeof(id) = 'text' and length(id) = 36 and id glob 'job_*' and substr(id, 5) not glob '*[^0-9a-f]*'"
_ENDED = ", ".join(f"'{status}'" for status in sorted(ENDED))
_SCHEMA = f"""
create table if not exists jobs (
    id text primary key,
    number integer not null,
    status text not null,
    client text not null,
    idempotency_key text,
    kept_since real not null,
    bytes integer not null,
    record text not null,
    digest text not null
);
create index if not exists jobs_by_number on jobs (number);
create index if not exists jobs_by_key on jobs (client, idempotency_key) where idempotency_key is not null;
create index if not exists jobs_by_end on jobs (kept_since) where status in ({_ENDED});
create table if not exists clock (only integer primary key check (only = 1), seconds real not null);
"""
_COLUMNS = ("id", "number", "status", "client", "idempotency_key", "kept_since", "bytes", "record", "digest")
_UPSERT = (
    f"insert into jobs ({', '.join(_COLUMNS)}) values ({', '.join('?' * len(_COLUMNS))}) "
    f"on conflict (id) do update set {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[1:])}"
)


class Store:
    """The database of a data folder. One process uses it at a time; its methods may be called from any thread.

    Args:
        path: the file of the database; made if it is not there.

    Attributes:
        was_damaged: where the file of an earlier database is that could not be read; None if there was none.

    Raises:
        StorageError: it cannot be opened, or a newer version made it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.was_damaged: Path | None = None
        self._lock = threading.Lock()
        self._is_patient = True
        try:
            try:
                self._database = self._opened()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
                    raise
                self.was_damaged = self._put_aside()
                self._database = self._opened()
        except sqlite3.Error as error:
            raise _as_storage_error(error) from error

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=_PATIENCE / 1_000, isolation_level=None, check_same_thread=False)
        try:
            version = database.execute("pragma user_version").fetchone()[0]
            if version > FORMAT:
                raise StorageError(
                    f"{self.path} is of format {version}, which a newer version of loopwright wrote; this one reads "
                    f"format {FORMAT}"
                )
            database.execute("pragma journal_mode = wal")
            # a transaction that was answered for is still there after a loss of power
            database.execute("pragma synchronous = full")
            found = database.execute("pragma quick_check").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(f"the database is malformed: {found}")
            database.executescript(_SCHEMA)
            if version != FORMAT:
                database.execute(f"pragma user_version = {FORMAT}")
        except BaseException:
            database.close()
            raise
        return database

    def _put_aside(self) -> Path:
        aside = next(
            path
            for number in itertools.count(1)
            if not (path := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists()
        )
        self.path.rename(aside)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        return aside

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def save(self, job: Job) -> None:
        """Write a job, a new one or one that is there.

        Raises:
            StorageError: it cannot be written now.
        """
        record = job.to_record()
        row = (*_columns(job), record, _digest(record))
        with self._using(writes=True) as database:
            database.execute(_UPSERT, row)

    def remove(self, job_id: str) -> None:
        """Forget a job.

        Raises:
            StorageError: it cannot be done now.
        """
        with self._using(writes=True) as database:
            database.execute("delete from jobs where id = ?", (job_id,))

    def get(self, job_id: str) -> Job | None:
        """A job; None if there is none of that name, or its row is damaged.

        Raises:
            StorageError: the database cannot be read now.
        """
        with self._using() as database:
            row = database.execute("select id, record, digest from jobs where id = ?", (job_id,)).fetchone()
        return None if row is None else _read(row)

    def by_key(self, client: str, key: str) -> str | None:
        """The name of the job that a client submitted under a key."""
        with self._using() as database:
            row = database.execute(
                "select id from jobs where client = ? and idempotency_key = ?", (client, key)
            ).fetchone()
        return None if row is None else str(row[0])

    def page(self, client: str | None, status: str | None, before: int | None, count: int) -> list[str]:
        """Names of jobs, the newest first.

        Args:
            client: whose; None for all.
            status: in which state; None for all.
            before: only those with a smaller number.
            count: at most so many.
        """
        wanted = {"client = ?": client, "status = ?": status, "number < ?": before}
        conditions = [condition for condition, value in wanted.items() if value is not None]
        where = f"where {' and '.join(conditions)}" if conditions else ""
        values = [value for value in wanted.values() if value is not None]
        with self._using() as database:
            rows = database.execute(
                f"select id from jobs {where} order by number desc limit ?", (*values, count)
            ).fetchall()
        return [str(row[0]) for row in rows]

    def put_right(self) -> list[str]:
        """Write rows again that say another thing than the record in them, and remove those of no job.

        Returns:
            The names of the jobs whose records are damaged.

        Raises:
            StorageError: the database cannot be used now.
        """
        with self._using() as database:
            has_nameless = database.execute(f"select exists (select 1 from jobs where not ({_IS_NAME}))").fetchone()[0]
        if has_nameless:
            # their jobs are found again by their folders
            with self._using(writes=True) as database:
                database.execute(f"delete from jobs where not ({_IS_NAME})")
        with self._using() as database:
            rows = database.execute(f"select {', '.join(_COLUMNS)} from jobs").fetchall()
        damaged = []
        for row in rows:
            job = _read((row[0], *row[-2:]))
            if job is None:
                damaged.append(str(row[0]))
            elif _columns(job) != row[:-2]:
                self.save(job)
        return damaged

    def unfinished(self) -> list[Job]:
        """The jobs that have not ended, in their order."""
        with self._using() as database:
            rows = database.execute(
                f"select id, record, digest from jobs where status not in ({_ENDED}) order by number"
            ).fetchall()
        return [job for row in rows if (job := _read(row)) is not None]

    def named(self, job_id: str) -> tuple[int, str] | None:
        """The number and the client of a job, whose record may be damaged; None if it has no row."""
        with self._using() as database:
            row = database.execute(
                "select cast(number as integer), cast(client as text) from jobs where id = ?", (job_id,)
            ).fetchone()
        return None if row is None else (int(row[0]), str(row[1]))

    def ids(self) -> set[str]:
        """The names of all jobs."""
        with self._using() as database:
            return {str(row[0]) for row in database.execute("select id from jobs").fetchall()}

    def last_number(self) -> int:
        with self._using() as database:
            return int(database.execute("select coalesce(max(number), 0) from jobs").fetchone()[0])

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state."""
        with self._using() as database:
            rows = database.execute("select status, count(*) from jobs group by status").fetchall()
        return {str(status): int(count) for status, count in rows}

    def to_forget(self, before: float, most_bytes: int, most_jobs: int) -> list[str]:
        """The jobs that ended, and are to be kept no longer: the oldest, so that the others are within bounds.

        Args:
            before: on the clock by which results are kept; what ended before is forgotten.
            most_bytes: the size of the files of all.
            most_jobs: their number.
        """
        found = []
        with self._using() as database:
            # from the newest on; what comes after the bounds is too much
            rows = database.execute(
                f"select id, kept_since, bytes from jobs where status in ({_ENDED}) "
                "order by kept_since desc, number desc"
            )
            size = count = 0
            for job_id, kept_since, its_bytes in rows:
                size, count = size + its_bytes, count + 1
                if kept_since < before or size > most_bytes or count > most_jobs:
                    found.append(str(job_id))
        return found

    def clock(self) -> float:
        """For how many seconds servers have used the data folder, by the last count or the last job that ended.

        The count is in the database alone, and begins again if that is lost; when the jobs ended is in their folders.
        """
        with self._using() as database:
            counted, ended = database.execute(
                "select (select seconds from clock), (select max(kept_since) from jobs)"
            ).fetchone()
        return max(float(counted or 0), float(ended or 0))

    def set_clock(self, seconds: float) -> None:
        """Raises `StorageError` if it cannot be written now."""
        with self._using(writes=True) as database:
            database.execute("replace into clock values (1, ?)", (seconds,))

    @contextmanager
    def _using(self, writes: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._database
            except sqlite3.Error as error:
                if writes:
                    self._be_patient(False)
                raise _as_storage_error(error) from error
            if writes:
                self._be_patient(True)

    def _be_patient(self, is_patient: bool) -> None:
        """After a write that failed nobody waits long for the next one."""
        if is_patient != self._is_patient:
            self._is_patient = is_patient
            # a thread that was left behind may come here after the database was closed
            with suppress(sqlite3.Error):
                self._database.execute(f"pragma busy_timeout = {_PATIENCE if is_patient else 50}")


def _columns(job: Job) -> tuple[Any, ...]:
    """What a row says of a job beside its record."""
    return (job.id, job.number, job.status.value, job.client, job.idempotency_key, job.kept_since, job.bytes)


def _read(row: tuple[Any, Any, Any]) -> Job | None:
    """The job of a row; None if the row is not as it was written."""
    job_id, record, digest = row
    if not isinstance(record, str) or _digest(record) != digest:
        return None
    try:
        job = Job.from_record(record)
    except ValueError:
        return None
    return job if job.id == job_id else None


def _digest(record: str) -> str:
    return hashlib.sha256(record.encode()).hexdigest()


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "") in ("SQLITE_CORRUPT", "SQLITE_NOTADB") or "malformed" in str(error)


def _as_storage_error(error: sqlite3.Error) -> StorageError:
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        return StorageError("the database cannot be written: the disk is full", True)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StorageError("the database is locked by another process")
    return StorageError(f"the database cannot be used: {error}")
