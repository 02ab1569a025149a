"""References of all roles and formats from a job's creation to its finished film, through a whole house."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from PIL import Image

from services.gateway.reference_media import FULL
from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.corpus import recordings as made
from tests.egress.certificates import Credentials
from tests.egress.evil_server import EvilServer
from tests.egress.scenes import answer
from tests.house import House, Inside, inside, running_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROLE = jobs.Reference
ENDED = {jobs.JOB_STATE_COMPLETED, jobs.JOB_STATE_FAILED, jobs.JOB_STATE_CANCELED}


def picture(kind: str, frames: int = 1) -> bytes:
    images = [Image.new("RGB", (320, 240), colour) for colour in ("teal", "plum", "gold")[:frames]]
    file = io.BytesIO()
    images[0].save(file, kind, **({"save_all": True, "append_images": images[1:]} if frames > 1 else {}))
    return file.getvalue()


FORMATS = {
    "bmp": picture("BMP"),
    "tiff": picture("TIFF"),
    "tiff of three pages": picture("TIFF", 3),
    "gif": picture("GIF"),
    "animated gif": picture("GIF", 3),
    "animated png": picture("PNG", 3),
    "animated webp": picture("WEBP", 3),
}
RECORDINGS = {sample.name: sample for sample in made.honest()}


@dataclass
class Surroundings:
    """A house whose operator allows one address beside the public ones, and who listens at it."""

    house: House
    services: Inside
    customer_id: str
    server: EvilServer

    def reference(self, content: bytes, role: ROLE.Role.ValueType = ROLE.ROLE_IMAGE) -> jobs.Reference:
        path = f"/{len(self.server.scenes)}"
        self.server.scenes[path] = answer(content, "Content-Type: text/plain")
        url = f"https://127.0.0.1:{self.server.port}{path}"
        return ROLE(role=role, strength=ROLE.STRENGTH_MID, url=url)

    async def made(self, key: str, *references: jobs.Reference) -> jobs.Job:
        limits = jobs.ReferenceLimits(
            image_formats=FULL.image_formats,
            image_bytes=FULL.image_bytes,
            images=FULL.images,
            first_frame_of_animations=FULL.first_frame_of_animations,
            videos=FULL.videos,
            video_bytes=FULL.video_bytes,
            audios=FULL.audios,
            audio_bytes=FULL.audio_bytes,
        )
        generation = jobs.Generation(
            kind=jobs.KIND_VIDEO,
            model="seedance-2.0-fast",
            prompt="a quiet valley",
            width=640,
            height=360,
            duration_s=4,
            references=references,
            reference_limits=limits,
        )
        request = jobs.CreateJobRequest(
            customer_id=self.customer_id,
            mode=jobs.MODE_LIVE,
            storefront="leonardo",
            idempotency_key=key,
            fingerprint=b"f" * 32,
            generation=generation,
            sku="video.second",
            quantity=4,
            limits=jobs.Limits(running_jobs=50, queued_jobs=50),
            id_prefix="job",
        )
        job_id = (await self.services.jobs.CreateJob(request)).job.job_id
        async with asyncio.timeout(90):
            while (job := await self._job(job_id)).state not in ENDED:
                await asyncio.sleep(0.1)
        return job

    async def _job(self, job_id: str) -> jobs.Job:
        asked = jobs.GetJobRequest(job_id=job_id, customer_id=self.customer_id, mode=jobs.MODE_LIVE)
        return (await self.services.jobs.GetJob(asked)).job

    async def nothing_staged(self) -> None:
        async with asyncio.timeout(10):
            while [path for path in (self.house.var / "references").rglob("*") if path.is_file()]:
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def around(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Surroundings]:
    credentials = Credentials(tmp_path_factory.mktemp("certificates"))
    async with (
        EvilServer(credentials.good) as server,
        running_house(
            tmp_path_factory.mktemp("recordings") / "var",
            ATELIER_EGRESS_ALLOW=f"127.0.0.1/32:{server.port}",
            ATELIER_EGRESS_CA_FILE=str(credentials.trusted.file),
        ) as house,
        inside(house) as services,
    ):
        await services.set_account_options(pace_ms="100")
        customer_id, _, _ = await services.customer(1_000_000)
        yield Surroundings(house, services, customer_id, server)


async def test_a_film_follows_images_films_and_sounds_of_every_kind(around: Surroundings) -> None:
    images = [around.reference(content) for content in FORMATS.values()]
    films = [around.reference(RECORDINGS[name].content, ROLE.ROLE_VIDEO) for name in ("mp4", "mov", "webm")]
    sounds = [around.reference(RECORDINGS[name].content, ROLE.ROLE_AUDIO) for name in ("mp3", "wav", "ogg")]
    job = await around.made("all", *images, *films, *sounds)
    assert job.state == jobs.JOB_STATE_COMPLETED
    assert len(around.server.paths()) == len(images) + len(films) + len(sounds)
    await around.nothing_staged()


async def test_a_film_goes_from_its_first_frame_to_its_last(around: Surroundings) -> None:
    first = around.reference(FORMATS["bmp"], ROLE.ROLE_FIRST_FRAME)
    last = around.reference(FORMATS["animated webp"], ROLE.ROLE_LAST_FRAME)
    assert (await around.made("frames", first, last)).state == jobs.JOB_STATE_COMPLETED


@pytest.mark.parametrize(
    ("content", "role", "reason"),
    [
        (made.recorded("mp4")[:-40], ROLE.ROLE_VIDEO, jobs.FAILURE_REASON_INVALID_REFERENCE),
        (made.wav(90), ROLE.ROLE_AUDIO, jobs.FAILURE_REASON_INVALID_REFERENCE),
        (picture("PNG"), ROLE.ROLE_VIDEO, jobs.FAILURE_REASON_INVALID_REFERENCE),
        (b"", ROLE.ROLE_VIDEO, jobs.FAILURE_REASON_INVALID_REFERENCE),
    ],
    ids=["a film that is cut off", "a sound that is too long", "a picture as a film", "nothing"],
)
async def test_a_job_whose_recording_is_not_taken_fails_and_costs_nothing(
    around: Surroundings,
    request: pytest.FixtureRequest,
    content: bytes,
    role: ROLE.Role.ValueType,
    reason: jobs.FailureReason.ValueType,
) -> None:
    job = await around.made(request.node.name, around.reference(content, role))
    assert job.state == jobs.JOB_STATE_FAILED
    assert job.failure == reason
    assert (job.charged_millis, job.refunded_millis) == (0, job.quoted_millis)
    await around.nothing_staged()
