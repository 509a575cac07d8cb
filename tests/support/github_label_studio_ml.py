"""How the GitHub version of label-studio-ml uses a model class, as far as ours meets it (contract, section 5).

One object a request; the context is taken out of the request's body; a webhook is worked on before it is acknowledged;
events that the version does not know are dropped; what /setup answers is what the model has stored as "model_version".
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, ClassVar

import flask

KNOWN_EVENTS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "START_TRAINING")


class LabelStudioMLBase:
    """The base class: state is kept outside, by project, and only strings."""

    stored: ClassVar[dict[tuple[str, str], str]] = {}

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        if label_config is not None:
            self.set("label_config", label_config)
        if not self.model_version:
            self.set("model_version", "0.0.1")
        self.setup()

    def setup(self) -> None:
        pass

    def get(self, key: str) -> str | None:
        return self.stored.get((self.project_id, key))

    def set(self, key: str, value: str) -> None:
        assert isinstance(value, str)
        self.stored[self.project_id, key] = value

    @property
    def label_config(self) -> str | None:
        return self.get("label_config")

    @property
    def model_version(self) -> str | None:
        return self.get("model_version")


def init_app(model_class: type[LabelStudioMLBase]) -> flask.Flask:
    """The server around a model class."""
    app = flask.Flask(__name__)

    @app.route("/predict", methods=["POST"], endpoint="_predict")
    def predict() -> Any:
        data = flask.request.get_json()
        params = data.get("params", {})
        context = params.pop("context", {})
        model = model_class(str(data["project"]).split(".")[0], label_config=data.get("label_config"))
        return flask.jsonify({"results": model.predict(data["tasks"], context=context, **params)})

    @app.route("/setup", methods=["POST"], endpoint="_setup")
    def setup() -> Any:
        data = flask.request.get_json()
        model = model_class(project_id=data["project"].split(".")[0], label_config=data.get("schema"))
        return flask.jsonify({"model_version": model.get("model_version")})

    @app.route("/webhook", methods=["POST"], endpoint="webhook")
    def webhook() -> Any:
        data = flask.request.get_json()
        event = data.pop("action")
        if event not in KNOWN_EVENTS:
            return flask.jsonify({"status": "Unknown event"})
        model = model_class(str(data["project"]["id"]), label_config=data["project"]["label_config"])
        return flask.jsonify({"result": model.fit(event, data), "status": "ok"})

    @app.route("/health", endpoint="health")
    def health() -> Any:
        return flask.jsonify({"status": "UP", "model_class": model_class.__name__})

    return app


def install() -> None:
    """Makes `label_studio_ml.model` this one, for the process."""
    package, model = ModuleType("label_studio_ml"), ModuleType("label_studio_ml.model")
    model.LabelStudioMLBase = LabelStudioMLBase  # type: ignore[attr-defined]
    sys.modules |= {"label_studio_ml": package, "label_studio_ml.model": model}
