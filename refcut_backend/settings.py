"""Every setting in one place, read from `REFCUT_*` once at the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.checkpoints.version_folder import SHIPPED_DIR
from refcut_backend.errors import ConfigError

LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that stand for all of a machine's: one listens on them, and connects to another."""


class Settings(BaseSettings):
    """Names carry their unit. `docs/settings.md` lists them, and a test holds that list to this class."""

    model_config = SettingsConfigDict(env_prefix="REFCUT_", frozen=True)

    host: str = Field("127.0.0.1", description="address the web server listens on")
    port: int = Field(9090, ge=1, le=65535, description="port the web server listens on")
    redis_url: str | None = Field(
        None, description="a real Redis (redis://...); without it `refcut run` embeds one"
    )
    state_dir: Path = Field(
        Path("refcut-state"),
        description="folder for the database, trainings and OpenVINO's form of the model",
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL; default is SQLite in the state folder"
    )
    model_dir: Path = Field(SHIPPED_DIR, description="folder with base.safetensors and version.safetensors")
    model_store: str | None = Field(
        None,
        description="folder or fsspec URL (s3://...) of the versions that projects have learned; default is `models` in "
        "the state folder. Web servers and workers on all machines must see the same",
    )
    models_in_memory: int = Field(
        4, ge=1, le=100, description="learned versions that a worker keeps loaded, besides the shared model"
    )
    device: str = Field("auto", pattern="^(auto|cpu|cuda(:\\d+)?)$", description="auto, cpu, cuda or cuda:N")
    runtime: Literal["auto", "openvino", "torch"] = Field(
        "auto",
        description="what computes the network; auto takes OpenVINO on a processor where it loads, torch else",
    )
    access_token: SecretStr | None = Field(
        None,
        description="Label Studio token to use instead of the one that Label Studio hands over: a personal access token "
        "or a legacy one; set it together with REFCUT_LABEL_STUDIO_URL",
    )
    label_studio_url: str | None = Field(
        None,
        pattern="^https?://[^/?#@]+(/[^?#]*)?$",
        description="Label Studio's address as this machine reaches it, when the one it hands over is another "
        "(containers); REFCUT_ACCESS_TOKEN is then sent nowhere else",
    )
    click_timeout_s: int = Field(8, ge=1, le=90, description="deadline for the answer to a click")
    click_queue_limit: int = Field(
        16, ge=1, le=200, description="clicks that may wait for a worker; further ones are refused as busy"
    )
    workers: int = Field(
        1, ge=1, le=64, description="workers that `refcut run` starts; they share this machine's cores"
    )
    image_timeout_s: int = Field(
        6,
        ge=1,
        le=90,
        description="longest time that getting an image may take, redirects and new tries included",
    )
    image_max_bytes: int = Field(64 * 2**20, ge=1, description="largest image file that is fetched")
    image_max_pixels: int = Field(100_000_000, ge=1, description="largest image that is decoded")
    image_hosts: str = Field(
        "",
        description="hosts (`host` or `host:port`, comma separated) that images may come from although they lie in a "
        "private network; Label Studio's own always may, and so may every public host",
    )
    local_files_dir: Path | None = Field(
        None,
        description="folder that this machine shares with Label Studio as its LOCAL_FILES_DOCUMENT_ROOT: "
        "images are read from it directly",
    )
    upload_dir: Path | None = Field(
        None,
        description="folder that this machine shares with Label Studio as its media/upload: "
        "images are read from it directly",
    )
    image_recheck_s: int = Field(
        60, ge=0, description="age at which a kept image is compared with Label Studio's at its next use"
    )
    image_cache_max_bytes: int = Field(
        256 * 2**20, ge=16 * 2**20, description="decoded images that a worker keeps"
    )
    feature_cache_max_bytes: int = Field(
        512 * 2**20,
        ge=64 * 2**20,
        description="what a worker keeps of images for the next click, on the model's device",
    )
    reference_cache_max_bytes: int = Field(
        128 * 2**20,
        ge=16 * 2**20,
        description="encoded references that a worker keeps, on the model's device",
    )
    max_references_per_label: int = Field(4, ge=1, description="newest references of a label that are pooled")
    clicks_kept_days: int = Field(
        365,
        ge=0,
        description="how long answered clicks are kept for trainings and counts; 0 = for ever. "
        "Looked at hourly, together with the comparison of references",
    )
    click_memory_s: int = Field(
        600,
        ge=0,
        description="how long single clicks (Auto accept) and boxes can be refined after the last click on them",
    )
    pending_masks_s: int = Field(
        120,
        ge=0,
        description="how long unaccepted masks of other labels come along with an answer; 0 = never",
    )
    mask_output: Literal["brush", "polygon", "rectangle"] = Field(
        "brush", description="what masks come back as if a label has several: brush, polygon or rectangle"
    )
    polygon_tolerance_px: float = Field(
        1.0,
        ge=0,
        le=100,
        description="farthest that polygons may leave a mask's outline, in pixels of the image",
    )
    polygon_min_area_percent: float = Field(
        1.0, ge=0, le=100, description="pieces of a mask below this percentage of its largest are no polygons"
    )
    prelabel: Literal["off", "open", "batch"] = Field(
        "off",
        description="when Label Studio gets masks that nobody clicked: `off`, `open` (a task is opened that has no "
        "prediction of the serving model) or `batch` (also when it asks for many, as by Retrieve Predictions)",
    )
    prelabel_open_timeout_s: int = Field(
        10, ge=1, le=90, description="longest time that opening a task may wait for such masks"
    )
    prelabel_batch_timeout_s: int = Field(
        90,
        ge=1,
        le=95,
        description="longest time for a batch; what is not done by then is left for the next one "
        "(Label Studio itself gives up after 100)",
    )
    reference_authors: str = Field(
        "",
        description="who may give references by marking regions: user ids or e-mail addresses, comma separated; "
        "empty = everybody",
    )
    reconcile_interval_s: int = Field(
        60,
        ge=0,
        description="how often references are compared with Label Studio, for lost webhooks; "
        "0 = only when a project is connected or its configuration changes",
    )
    train_after_annotations: int = Field(
        20,
        ge=0,
        description="new or changed annotations after which a project is trained; 0 = never by their number",
    )
    train_min_interval_s: int = Field(
        600, ge=0, description="shortest time between the beginnings of two trainings that nobody asked for"
    )
    train_cron: str = Field(
        "",
        description="times at which a project with new annotations is trained, in cron's form and this machine's time, "
        "such as `30 2 * * *`; empty = never",
    )
    train_holdout_percent: float = Field(
        20.0, ge=0, le=50, description="share of a project's images that is only judged on"
    )
    train_holdout_min_images: int = Field(
        5, ge=1, description="images that must be held out for a new model to be promoted by itself"
    )
    train_timeout_s: int = Field(21600, ge=60, description="longest time that a training may take")
    train_learning_s: int = Field(
        720,
        ge=10,
        description="what a training may spend on learning itself: it takes as many steps as fit, up to what its images "
        "can use; making the snapshot and judging come on top",
    )
    train_keep_runs: int = Field(
        10,
        ge=1,
        description="newest trainings of a project whose snapshots stay; those of versions that last stay, too",
    )
    train_threads: int = Field(
        0, ge=0, le=256, description="processor threads of a training; 0 = half of the processor's"
    )
    training_worker: bool = Field(True, description="whether `refcut run` starts a worker for trainings")
    request_max_bytes: int = Field(64 * 2**20, ge=1, description="largest request body that is read")

    basic_auth_user: str | None = Field(
        None, description="user name that Label Studio must send; set it together with the password"
    )
    basic_auth_password: SecretStr | None = Field(None, description="password that Label Studio must send")
    webhook_secret: SecretStr | None = Field(
        None,
        description="value that webhooks must carry in the header X-RefCut-Webhook-Secret; "
        "needed for webhooks as soon as a password is set",
    )

    @field_validator(
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

    @field_validator("basic_auth_user")
    @classmethod
    def _user_has_no_colon(cls, value: str | None) -> str | None:
        if value is not None and ":" in value:
            raise ValueError("a user name cannot hold a colon")
        return value

    @model_validator(mode="after")
    def _both_or_neither(self) -> Settings:
        if (self.basic_auth_user is None) != (self.basic_auth_password is None):
            raise ValueError(
                "REFCUT_BASIC_AUTH_USER and REFCUT_BASIC_AUTH_PASSWORD belong together, only one is set"
            )
        if self.access_token is not None and self.label_studio_url is None:
            raise ValueError(
                "REFCUT_ACCESS_TOKEN needs REFCUT_LABEL_STUDIO_URL: else whoever reaches /setup could have the token "
                "sent to an address of his choice"
            )
        return self

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the database."""
        return self.database_url or f"sqlite:///{(self.state_dir / 'refcut.db').resolve()}"

    @property
    def listens_everywhere(self) -> bool:
        """Whether the web server has no address of its own, but all those of the machine."""
        return self.host in LOOPBACK_OF

    @property
    def local_address(self) -> str:
        """The web server's address for programs on this machine."""
        host = LOOPBACK_OF.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def model_store_url(self) -> str:
        """Where learned versions are."""
        return self.model_store or str((self.state_dir / "models").resolve())

    @property
    def own_token(self) -> str | None:
        """The token that wins over what Label Studio hands over."""
        return self.access_token.get_secret_value() if self.access_token else None

    @property
    def training_dir(self) -> Path:
        """Folder of trainings: below it, one a project, and in that one a run."""
        return self.state_dir / "training"

    @property
    def runtime_cache_dir(self) -> Path:
        """Folder where OpenVINO's form of the model is kept for the next start."""
        return self.state_dir / "openvino"

    @property
    def allowed_image_hosts(self) -> frozenset[str]:
        """Hosts that may lie in a private network besides Label Studio's own, lower case."""
        return frozenset(host.strip().lower() for host in self.image_hosts.split(",") if host.strip())


def read_settings() -> Settings:
    """Settings from the environment. Raises ConfigError that names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        variable = "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(
            f"REFCUT_{variable}: {said}" if variable else said, hint="see docs/settings.md"
        ) from None
