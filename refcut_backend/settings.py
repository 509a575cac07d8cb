"""Every setting in one place, read from `REFCUT_*` once at the start."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.version_folder import SHIPPED_DIR
from refcut_backend.errors import ConfigError


class Settings(BaseSettings):
    """Names carry their unit. `docs/settings.md` lists them, and a test holds that list to this class."""

    model_config = SettingsConfigDict(env_prefix="REFCUT_", frozen=True)

    host: str = Field("127.0.0.1", description="address the web server listens on")
    port: int = Field(9090, ge=1, le=65535, description="port the web server listens on")
    redis_url: str | None = Field(
        None, description="a real Redis (redis://...); without it `refcut run` embeds one"
    )
    state_dir: Path = Field(
        Path("refcut-state"), description="folder for the database and OpenVINO's form of the model"
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL; default is SQLite in the state folder"
    )
    model_dir: Path = Field(SHIPPED_DIR, description="folder with base.safetensors and version.safetensors")
    device: str = Field("auto", pattern="^(auto|cpu|cuda(:\\d+)?)$", description="auto, cpu, cuda or cuda:N")
    runtime: Literal["auto", "openvino", "torch"] = Field(
        "auto",
        description="what computes the network; auto takes OpenVINO on a processor where it loads, torch else",
    )
    access_token: SecretStr | None = Field(
        None, description="Label Studio legacy token to use instead of the one that Label Studio hands over"
    )
    click_timeout_s: int = Field(8, ge=1, le=90, description="deadline for the answer to a click")
    image_timeout_s: int = Field(
        6, ge=1, le=90, description="longest wait for Label Studio to start or go on sending"
    )
    image_max_bytes: int = Field(64 * 2**20, ge=1, description="largest image file that is fetched")
    image_max_pixels: int = Field(100_000_000, ge=1, description="largest image that is decoded")
    image_hosts: str = Field(
        "",
        description="further hosts that images may come from, comma separated; Label Studio's own always may",
    )
    cached_images: int = Field(12, ge=1, description="images that a worker keeps ready for further clicks")
    max_references_per_label: int = Field(4, ge=1, description="newest references of a label that are pooled")
    request_max_bytes: int = Field(64 * 2**20, ge=1, description="largest request body that is read")

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the database."""
        return self.database_url or f"sqlite:///{(self.state_dir / 'refcut.db').resolve()}"

    @property
    def runtime_cache_dir(self) -> Path:
        """Folder where OpenVINO's form of the model is kept for the next start."""
        return self.state_dir / "openvino"

    @property
    def allowed_image_hosts(self) -> frozenset[str]:
        """Hosts besides Label Studio's own, lower case."""
        return frozenset(host.strip().lower() for host in self.image_hosts.split(",") if host.strip())


def read_settings() -> Settings:
    """Settings from the environment. Raises ConfigError that names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "REFCUT_" + "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(f"{name}: {first['msg']}", hint="see docs/settings.md") from None
