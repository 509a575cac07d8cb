"""Every setting: add a `REFCUT_*` variable here, with its default, its limits and its description.

Settings are read from the environment once, at the start of a process. This module imports no feature; settings with a
syntax of their own (authors, cron) are checked by `wiring.check_settings`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.checkpoints.version_folder import SHIPPED_DIR
from refcut_backend.errors import ConfigError

LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Wildcard addresses, on which a server listens, and the address at which a program on this machine connects to it."""


class Settings(BaseSettings):
    """The settings of all processes. A name ends in its unit.

    Attributes are described by their fields. `refcut settings` prints them as the table of `docs/settings.md`, and a test
    keeps the two equal.
    """

    model_config = SettingsConfigDict(env_prefix="REFCUT_", frozen=True)

    host: str = Field("127.0.0.1", description="address the web server listens on")
    port: int = Field(9090, ge=1, le=65535, description="port the web server listens on")
    redis_url: str | None = Field(
        None, description="URL of a Redis server (redis://...); without it `refcut run` embeds one"
    )
    state_dir: Path = Field(
        Path("refcut-state"),
        description="folder for the database, the trainings and the model in OpenVINO's format",
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL of the database; the default is SQLite in the state folder"
    )
    model_dir: Path = Field(
        SHIPPED_DIR,
        description="weights: a folder with base.safetensors and version.safetensors, the folder of a training, "
        "or a file of `python -m model convert`",
    )
    model_store: str | None = Field(
        None,
        description="folder or fsspec URL (s3://...) of the trained model versions; the default is `models` in "
        "the state folder. Web servers and workers on all machines must use the same",
    )
    models_in_memory: int = Field(
        4,
        ge=1,
        le=100,
        description="trained model versions that a worker keeps loaded besides the shared model",
    )
    device: str = Field("auto", description="device of the model: auto, cpu, cuda or cuda:N")
    runtime: Literal["auto", "openvino", "torch"] = Field(
        "auto",
        description="runtime of the network; auto uses OpenVINO on a processor if it loads, otherwise torch",
    )
    access_token: SecretStr | None = Field(
        None,
        description="Label Studio token to use instead of the one in /setup: a personal access token "
        "or a legacy token; needs REFCUT_LABEL_STUDIO_URL",
    )
    label_studio_url: str | None = Field(
        None,
        pattern="^https?://[^/?#@]+(/[^?#]*)?$",
        description="URL of Label Studio as this machine reaches it, if it differs from the one in /setup "
        "(containers); REFCUT_ACCESS_TOKEN is sent only there",
    )
    label_studio_aliases: str = Field(
        "",
        pattern="^\\s*(https?://[^/?#@,\\s]+(/[^?#,\\s]*)?(\\s*,\\s*|\\s*$))*$",
        description="further URLs of Label Studio, comma separated, with which images in tasks begin, such as "
        "`http://localhost:8080`; these images are requested from Label Studio's own address, with its token",
    )
    click_timeout_s: int = Field(8, ge=1, le=90, description="deadline for the answer to a click, in seconds")
    click_queue_limit: int = Field(
        64,
        ge=1,
        le=200,
        description="upper limit of the clicks that may wait for a worker. Fewer may wait if they could not be answered "
        "in time, by the times that the workers measure; further clicks are refused as `busy`",
    )
    click_queue_wait_s: float = Field(
        0.5,
        ge=0,
        le=90,
        allow_inf_nan=False,
        description="longest time that a click waits for its turn, by the times that the workers measure, in seconds; a "
        "click that would wait longer is refused as `busy`. Two clicks per worker may wait in any case",
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="workers that `refcut run` starts; they share the processor cores of this machine",
    )
    image_timeout_s: int = Field(
        6,
        ge=1,
        le=90,
        description="time limit for fetching an image, redirects and retries included",
    )
    image_max_bytes: int = Field(64 * 2**20, ge=1, description="size limit of an image file")
    image_max_pixels: int = Field(100_000_000, ge=1, description="pixel limit of a decoded image")
    image_max_memory_bytes: int = Field(
        2**30,
        ge=2**20,
        description="limit of the memory that decoding an image takes, estimated from its header: 7 bytes per pixel for "
        "most files, 13 for a progressive JPEG, 19 for WebP",
    )
    image_hosts: str = Field(
        "",
        description="hosts (`host` or `host:port`, comma separated) in private networks that images may be fetched from; "
        "Label Studio's own host and all public hosts are always allowed",
    )
    local_files_dir: Path | None = Field(
        None,
        description="Label Studio's LOCAL_FILES_DOCUMENT_ROOT, if this machine can read it: "
        "images are then read from it directly",
    )
    upload_dir: Path | None = Field(
        None,
        description="Label Studio's folder media/upload, if this machine can read it: "
        "images are then read from it directly",
    )
    image_recheck_s: int = Field(
        60, ge=0, description="age after which a cached image is compared with Label Studio's at its next use"
    )
    image_cache_max_bytes: int = Field(
        256 * 2**20, ge=16 * 2**20, description="memory limit of a worker's cache of decoded images"
    )
    feature_cache_max_bytes: int = Field(
        512 * 2**20,
        ge=64 * 2**20,
        description="memory limit of a worker's cache of image features, on the model's device",
    )
    reference_cache_max_bytes: int = Field(
        128 * 2**20,
        ge=16 * 2**20,
        description="memory limit of a worker's cache of encoded references, on the model's device",
    )
    prepare_next_task: bool = Field(
        True,
        description="whether the task that Label Studio offers next is fetched and encoded while the workers are idle",
    )
    max_references_per_label: int = Field(
        4, ge=1, description="number of references of a label that are used, newest first"
    )
    clicks_kept_days: int = Field(
        365,
        ge=0,
        description="days that answered clicks are stored for trainings and statistics; 0 = forever. "
        "Older clicks are removed hourly",
    )
    click_memory_s: int = Field(
        600,
        ge=0,
        description="time after the last click during which single clicks (Auto accept) and boxes can be refined",
    )
    pending_masks_s: int = Field(
        120,
        ge=0,
        description="time during which an answer repeats the unaccepted masks of boxes of the same label that are still "
        "on the canvas; 0 = never",
    )
    recover_masks: bool = Field(
        False,
        description="whether masks that were submitted without the tick are put into their annotations within "
        "`REFCUT_RECONCILE_INTERVAL_S`; `refcut masks recover` does it on request",
    )
    mask_output: Literal["brush", "polygon", "rectangle"] = Field(
        "brush", description="form of masks whose label is in several controls: brush, polygon or rectangle"
    )
    polygon_tolerance_px: float = Field(
        1.0,
        ge=0,
        le=100,
        description="largest distance between a polygon and the outline of its mask, in pixels of the image",
    )
    polygon_min_area_percent: float = Field(
        1.0,
        ge=0,
        le=100,
        description="pieces of a mask smaller than this percentage of the largest piece become no polygon",
    )
    prelabel: Literal["off", "open", "batch"] = Field(
        "off",
        description="when masks are predicted without a click: `off`, `open` (a task is opened that has no "
        "prediction of the serving model) or `batch` (also for many tasks at once, as by Retrieve Predictions)",
    )
    prelabel_open_timeout_s: int = Field(
        10, ge=1, le=90, description="time limit for predicting masks when a task is opened"
    )
    prelabel_batch_timeout_s: int = Field(
        90,
        ge=1,
        le=95,
        description="time limit for a batch; the rest is left for the next one "
        "(Label Studio gives up after 100 seconds)",
    )
    reference_authors: str = Field(
        "",
        description="users whose marked regions become references: user ids or e-mail addresses, comma separated; "
        "empty = everybody",
    )
    reconcile_interval_s: int = Field(
        60,
        ge=0,
        description="interval between comparisons of the references with Label Studio, in case webhooks are lost; "
        "0 = only when a project is connected or its configuration changes",
    )
    train_after_annotations: int = Field(
        20,
        ge=0,
        description="number of new or changed annotations that starts a training; 0 = never",
    )
    train_min_interval_s: int = Field(
        600, ge=0, description="shortest time between the starts of two automatic trainings of a project"
    )
    train_cron: str = Field(
        "",
        description="schedule for training projects with new annotations: a cron expression in the local time of this "
        "machine, such as `30 2 * * *`; empty = never",
    )
    train_holdout_percent: float = Field(
        20.0,
        ge=0,
        le=50,
        description="percentage of a project's images that are held out for the comparison of models",
    )
    train_holdout_min_images: int = Field(
        5, ge=1, description="number of held-out images needed for promoting a new model automatically"
    )
    train_timeout_s: int = Field(21600, ge=60, description="time limit for a whole training")
    train_learning_s: int = Field(
        2700,
        ge=10,
        description="time for the optimisation within a training, which takes as many steps as fit, up to a limit by the "
        "number of images; snapshot and comparison come on top",
    )
    train_comparison_s: int = Field(
        900,
        ge=10,
        description="time for the comparison of a new version with the serving one, about: on a slow or busy machine "
        "fewer of the held-out images are annotated, and the result says how many masks were left out",
    )
    train_keep_runs: int = Field(
        10,
        ge=1,
        description="number of newest trainings of a project whose snapshots are kept, besides those of versions in use",
    )
    train_threads: int = Field(
        0, ge=0, le=256, description="processor threads of a training; 0 = half of the available cores"
    )
    training_worker: bool = Field(True, description="whether `refcut run` starts a training worker")
    request_max_bytes: int = Field(64 * 2**20, ge=1, description="size limit of a request body")

    allowed_hosts: str = Field(
        "",
        description="public host names that requests may be sent to, comma separated, such as `refcut.example.com`. IP "
        "addresses and local names are always allowed; with a password and an empty list every name is",
    )
    basic_auth_user: str | None = Field(
        None,
        description="user name that Label Studio must send, and people log in to the pages with; needs the password too",
    )
    basic_auth_password: SecretStr | None = Field(
        None, description="password that Label Studio must send, and people log in to the pages with"
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="value of the header X-RefCut-Webhook-Secret that webhooks must send; "
        "required as soon as a password is set",
    )

    @field_validator(
        "redis_url",
        "access_token",
        "label_studio_url",
        "model_store",
        "basic_auth_user",
        "basic_auth_password",
        "webhook_secret",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("redis_url")
    @classmethod
    def _redis_url_is_valid(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"(rediss?|unix)://.", value):
            raise ValueError("a URL of a Redis server is needed, such as redis://localhost:6379/0")
        return value

    @field_validator("device")
    @classmethod
    def _device_is_known(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError("auto, cpu, cuda (a GPU) or cuda:N (the GPU with that number) is needed")
        return value

    @field_validator("basic_auth_user")
    @classmethod
    def _user_has_no_colon(cls, value: str | None) -> str | None:
        if value is not None and ":" in value:
            raise ValueError("a user name cannot contain a colon")
        return value

    @model_validator(mode="after")
    def _both_or_neither(self) -> Settings:
        if (self.basic_auth_user is None) != (self.basic_auth_password is None):
            raise ValueError(
                "REFCUT_BASIC_AUTH_USER and REFCUT_BASIC_AUTH_PASSWORD belong together, but only one is set"
            )
        if self.access_token is not None and self.label_studio_url is None:
            raise ValueError(
                "REFCUT_ACCESS_TOKEN needs REFCUT_LABEL_STUDIO_URL: otherwise anybody who reaches /setup could have the "
                "token sent to any server"
            )
        return self

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the database."""
        if self.database_url:
            return self.database_url
        path = str((self.state_dir / "refcut.db").resolve())
        return f"sqlite:///{quote(path, safe='/ ')}"

    @property
    def listens_everywhere(self) -> bool:
        """Whether the web server listens on all addresses of the machine."""
        return self.host in LOOPBACK_OF

    @property
    def local_address(self) -> str:
        """URL of the web server for programs on this machine."""
        host = LOOPBACK_OF.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def model_store_url(self) -> str:
        """Folder or URL of the trained model versions."""
        return self.model_store or str((self.state_dir / "models").resolve())

    @property
    def own_token(self) -> str | None:
        """The token that replaces the one in /setup; None if none is set."""
        return self.access_token.get_secret_value() if self.access_token else None

    @property
    def training_dir(self) -> Path:
        """Folder of the trainings; it has one folder per project with one folder per run."""
        return self.state_dir / "training"

    @property
    def runtime_cache_dir(self) -> Path:
        """Folder where the converted OpenVINO model is stored for the next start."""
        return self.state_dir / "openvino"

    @property
    def aliases(self) -> tuple[str, ...]:
        """Further URLs of Label Studio."""
        return tuple(url.strip() for url in self.label_studio_aliases.split(",") if url.strip())

    @property
    def allowed_image_hosts(self) -> frozenset[str]:
        """Hosts in private networks that images may be fetched from, in lower case."""
        return frozenset(host.strip().lower() for host in self.image_hosts.split(",") if host.strip())


def read_settings() -> Settings:
    """Settings from the environment.

    Raises:
        ConfigError: If a variable is invalid. The message names the variable, never its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        problem = first["msg"].removeprefix("Value error, ")
        variable = "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(
            f"REFCUT_{variable}: {problem}" if variable else problem, hint="see docs/settings.md"
        ) from None
