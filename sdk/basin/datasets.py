"""Datasets of a service: `client.data`. An upload continues where a broken connection stopped."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx2

from basin.answers import parse_answer, validate_body
from basin.errors import BadAnswer, BadFile, Problem, Unreachable
from basin.local_data import LocalData, ReportBytes, open_local_data
from basin.shapes import Dataset, DatasetPage, Event
from basin.transport import (
    AGAIN,
    LONGEST_PAUSE,
    TRIES,
    Transport,
    describe_error,
    parse_object,
    raise_for_problem,
    retry_delay,
)

PIECE: Final = 8 << 20
LONGEST_NAME: Final = 200  # characters
SETTLED: Final = frozenset({"ready", "refused", "failed", "cancelled"})
POLL: Final = 0.2  # seconds between requests for a dataset that is being prepared
TUS: Final = {"Tus-Resumable": "1.0.0"}


ReportDataset = Callable[[Dataset], None]


def ignore_bytes(_done: int, _all: int) -> None:
    """Reports nothing."""


class DatasetClient:
    """The datasets of the project of the client's key."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add(  # noqa: PLR0913 - the data, its description, and who is told
        self,
        source: Any,
        *,
        name: str | None = None,
        format: str = "auto",  # noqa: A002 - the field of the API
        options: Mapping[str, Any] | None = None,
        wait: bool = True,
        on_hash: ReportBytes = ignore_bytes,
        on_upload: ReportBytes = ignore_bytes,
        on_change: ReportDataset | None = None,
    ) -> Dataset:
        """Uploads a path, a DataFrame, an array or a dict of arrays, and waits until it is prepared.

        As in `client.data.add("train.csv")`, `client.data.add(frame, name="sales")`, `client.data.add("photos/")` or
        `client.data.add({"inputs": x, "targets": y}, name="mine")`. `name` is by default that of the file, else `data`.
        `options` correct what is guessed, as in {"delimiter": ";", "columns": {"zip": {"kind": "category"}}}.

        Bytes that the project has already, with the same options, are not sent again. `on_hash` and `on_upload` are
        called with (bytes done, bytes in all), `on_change` with the dataset while it is prepared. With `wait` false the
        dataset is returned as soon as its bytes have arrived. A dataset that is refused is returned, with its errors.

        Raises:
            BadFile: the source cannot be read, is empty, or is none of these.
            Problem: the service does not accept it, as beyond a quota.
            Unreachable: no answer after all tries; the next `add` of the same bytes begins a new upload.
        """
        with open_local_data(source, on_hash) as data:
            if data.bytes == 0:
                raise BadFile(f"{data.filename or 'the data'}: there is no byte in it")
            body = {
                "name": (name or dataset_name(data.filename) or "data")[:LONGEST_NAME],
                "format": data.format or format,
                "bytes": data.bytes,
                "sha256": data.sha256,
                "options": dict(options or {}),
            }
            if data.filename:
                body["filename"] = data.filename[-LONGEST_NAME:]
            found = self.create(body)
            if found.status == "uploading":
                self._upload(found, data, on_upload)
                found = self._end_upload(found, data)
        if not wait:
            return found
        for change in self.follow(found.id):
            found = change
            if on_change is not None:
                on_change(found)
        return found

    def create(self, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> Dataset:
        """Announces an upload, or names a source that the operator allows. See POST /v1/datasets."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return self._parse(self._transport.post("/v1/datasets", body=dict(body), headers=headers))

    def get(self, dataset: str) -> Dataset:
        """One dataset by its id."""
        return self._parse(self._transport.get(dataset_path(dataset)))

    def list(
        self, *, name: str | None = None, status: str | None = None, after: str | None = None, limit: int | None = None
    ) -> DatasetPage:
        """Datasets, newest first. Without a `limit`, iteration continues over all pages."""

        def page_after(last: str) -> DatasetPage:
            return self.list(name=name, status=status, after=last)

        params = {"name": name, "status": status, "after": after, "limit": limit}
        page = parse_answer(DatasetPage, self._transport.get("/v1/datasets", params=params))
        return page.continued(page_after) if limit is None else page

    def find(self, name_or_id: str) -> Dataset:
        """A dataset by its id, or by its name: the newest that is ready, else the newest. Raises Problem (404)."""
        if name_or_id.startswith("ds_"):
            return self.get(name_or_id)
        for status in ("ready", None):
            page = self.list(name=name_or_id, status=status, limit=1)
            if page.data:
                return self.get(page.data[0].id)  # lists have no columns
        raise Problem(404, "not_found", "Not found", f"there is no dataset {name_or_id!r}")

    def rows(self, dataset: str, limit: int = 20) -> tuple[dict[str, Any], ...]:
        """The first rows as they were understood, at most 20. Raises Problem (409) where it is not ready."""
        body = parse_object(self._transport.get(dataset_path(dataset, "rows"), params={"limit": limit}))
        return tuple(dict(row) for row in body.get("data") or ())

    def events(self, dataset: str) -> Iterator[Event]:
        """The events of its preparation."""
        body = parse_object(self._transport.get(dataset_path(dataset, "events")))
        for one in body.get("data") or ():
            yield validate_body(Event, one)

    def correct(self, dataset: str, schema: Mapping[str, Any]) -> Dataset:
        """A new dataset of the same bytes with corrected columns: {"columns": {"zip": {"kind": "category"}}}."""
        return self._parse(self._transport.put(dataset_path(dataset, "schema"), body=dict(schema)))

    def delete(self, dataset: str) -> None:
        """Deletes a dataset. Raises Problem (409) while a job that has not ended needs it."""
        self._transport.delete(dataset_path(dataset))

    def follow(self, dataset: str) -> Iterator[Dataset]:
        """The dataset now and after every change, until it is ready, refused, failed or cancelled."""
        last: Any = None
        while True:
            found = self.get(dataset)
            if found.raw() != last:
                last = found.raw()
                yield found
            if found.status in SETTLED:
                return
            time.sleep(POLL)

    def _upload(self, dataset: Dataset, data: LocalData, report: ReportBytes) -> None:
        """Sends what the service lacks, piece by piece. Every failure first asks how far the service has come."""
        offset, tried = self._offset(dataset.id), 0
        while offset < data.bytes:
            data.file.seek(offset)
            moved = self._send_piece(self._piece(dataset, offset, data.file.read(PIECE)), tried)
            if moved is None:
                tried += 1
                moved = self._offset(dataset.id)
            if moved > offset:
                tried = 0
            offset = moved
            report(offset, data.bytes)

    def _end_upload(self, dataset: Dataset, data: LocalData) -> Dataset:
        """The dataset after its last byte. An empty piece ends an upload whose end the service has not noted: it may
        have stopped between the last byte and the end.
        """
        for tried in range(TRIES):
            found = self.get(dataset.id)
            if found.status != "uploading":
                return found
            self._send_piece(self._piece(dataset, data.bytes, b""), tried)
        return self.get(dataset.id)

    def _piece(self, dataset: Dataset, offset: int, piece: bytes) -> httpx2.Request:
        headers = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        path = dataset_path(dataset.id, "content")
        return self._transport.http.build_request("PATCH", path, content=piece, headers=headers)

    def _send_piece(self, request: httpx2.Request, tried: int) -> int | None:
        """The offset after a piece; None where the piece may or may not have arrived."""
        answer: httpx2.Response | None = None
        try:
            answer = self._transport.http.send(request)
        except httpx2.TransportError as error:
            if tried >= TRIES - 1:
                raise Unreachable(self._transport.url, describe_error(error)) from error
        if answer is not None:
            conflict = answer.status_code == httpx2.codes.CONFLICT and "Upload-Offset" in answer.headers
            if not conflict and (answer.status_code not in AGAIN or tried >= TRIES - 1):
                return _read_offset(raise_for_problem(answer))
        time.sleep(min(LONGEST_PAUSE, retry_delay(tried, answer)))
        return None

    def _offset(self, dataset: str) -> int:
        request = self._transport.http.build_request("HEAD", dataset_path(dataset, "content"), headers=TUS)
        return _read_offset(self._transport.send(request))

    @staticmethod
    def _parse(answer: httpx2.Response) -> Dataset:
        return parse_answer(Dataset, answer)


def dataset_path(dataset: str, *rest: str) -> str:
    """The path of a dataset; the id is quoted."""
    return "/".join(["/v1/datasets", quote(dataset, safe=""), *rest])


def dataset_name(filename: str) -> str | None:
    """The name of a dataset from that of its file: without endings."""
    stem = Path(filename).name
    for _ in range(2):
        stem = Path(stem).stem if Path(stem).suffix.lower() in ENDINGS else stem
    return stem or None


ENDINGS: Final = frozenset(
    ".csv .tsv .jsonl .ndjson .parquet .npy .npz .safetensors .idx .gz .zip .tar .tgz .txt".split()  # noqa: SIM905
)


def _read_offset(answer: httpx2.Response) -> int:
    offset = answer.headers.get("Upload-Offset", "")
    if not offset.isdigit():
        raise BadAnswer(f"{answer.request.method} of an upload was answered without Upload-Offset; is this Basin?")
    return int(offset)
