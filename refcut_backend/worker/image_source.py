"""Where a worker's images come from, as the settings say."""

from __future__ import annotations

from refcut_backend.database.projects import Projects
from refcut_backend.label_studio.allowed_hosts import AllowedHosts
from refcut_backend.settings import Settings
from refcut_backend.store.addresses import Addresses
from refcut_backend.worker.image_decode import decode_image
from refcut_backend.worker.image_fetch import Fetched, ImageFetcher, Stamp
from refcut_backend.worker.image_shelf import Image, ImageShelf
from refcut_backend.worker.mounted_files import MountedFolders
from refcut_backend.worker.prefetch import TaskImage


def open_image_shelf(settings: Settings, projects: Projects, addresses: Addresses) -> ImageShelf:
    """Raises ConfigError for hosts in the settings that are none."""
    fetcher = _fetcher(settings)

    def fetch(where: TaskImage, known: Stamp, limit_s: float) -> Fetched:
        connection = projects.connection(where.project_id)
        return fetcher.fetch(addresses.read(where.address), where.task_id, connection, known, limit_s)

    return ImageShelf(
        fetch,
        lambda data: decode_image(data, settings.image_max_pixels),
        max_bytes=settings.image_cache_max_bytes,
        limit_s=settings.image_timeout_s,
        recheck_s=settings.image_recheck_s,
    )


def read_image(settings: Settings, projects: Projects, addresses: Addresses, where: TaskImage) -> Image:
    """One image at full size, RGB (H, W, 3). Raises RefCutError that says what to do."""
    connection = projects.connection(where.project_id)
    fetched = _fetcher(settings).fetch(addresses.read(where.address), where.task_id, connection)
    return decode_image(fetched.data or b"", settings.image_max_pixels)


def _fetcher(settings: Settings) -> ImageFetcher:
    AllowedHosts.of([], settings.allowed_image_hosts)
    return ImageFetcher(
        max_bytes=settings.image_max_bytes,
        limit_s=settings.image_timeout_s,
        trusted_hosts=settings.allowed_image_hosts,
        folders=MountedFolders(settings.local_files_dir, settings.upload_dir),
    )
