"""The responses of the service, as documented in openapi.json."""

from typing import Literal

from pydantic import BaseModel, Field

Word = Literal["good", "bad", "review"]
Cause = Literal["unreadable", "deadline", "worker", "timeout", "disk"]


class Region(BaseModel):
    """A damaged region, as in `defectflow inspect --jsonl`."""

    box: list[int] = Field(description="x, y, width, height in pixels of the upright photograph")
    score: float
    pixels: int
    mark: str = Field(description="why the only box is the peak of the anomaly map; empty for a damaged region")


class Result(BaseModel):
    """The verdict on one photograph.

    If it was not judged, ``verdict`` is "review", ``cause`` and ``reason`` say why, and the scores are null.
    """

    id: str = Field(description="unique id of this verdict")
    part_id: str | None = Field(None, description="as in the request")
    file: str = Field(description="name of the file in the request")
    model: str
    model_version: str
    verdict: Word = Field(
        description="review: the score is in the review band, the mask of the part is doubtful, or it was not judged"
    )
    bad: bool | None = Field(None, description="raw_score >= threshold: the verdict without review")
    score: float | None = Field(None, description="in [0, 1], with the threshold at 0.5")
    raw_score: float | None = None
    threshold: float | None = None
    review: bool | None = Field(None, description="whether the score is in the review band; null without one")
    mask_present: bool | None = Field(None, description="whether the part was found; null without masks")
    mask_doubtful: bool | None = None
    reason: str = ""
    kind: str | None = Field(None, description='of the defect, "" if it is good; null if the bundle names no kinds')
    kind_probability: float | None = None
    cause: Cause | None = Field(None, description="why it was not judged; null if it was")
    size: list[int] | None = Field(None, description="width, height of the upright photograph")
    region_count: int | None = None
    regions: list[Region] | None = Field(None, description="with regions=1")
    overlay_jpeg: str | None = Field(None, description="with overlay=1: JPEG in base64")
    ms: float | None = Field(None, description="milliseconds spent on judging")
    waited_ms: float | None = Field(None, description="milliseconds in the queue")


class Answer(BaseModel):
    """The verdicts on the photographs of a request, in order."""

    results: list[Result]
    ms: float = Field(description="milliseconds from the request's headers to the response")


class Failure(BaseModel):
    """Why a whole request was refused."""

    error: str


class Model(BaseModel):
    """A bundle used by the service."""

    name: str
    version: str = Field(description="first 12 digits of the sha256 of its bundle.json")
    run: str = Field(description="name of the run that made the bundle")
    runtime: str
    threshold: float
    review: list[float] | None = None


class State(BaseModel):
    """Whether the service can judge."""

    ready: bool
    why: str = ""
    workers: int = 0
    waiting: int = 0
    models: list[Model] = []
