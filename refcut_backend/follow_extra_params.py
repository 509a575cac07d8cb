"""Takes what a project's owner says in the extra parameters of the ML backend, which come with every /setup."""

from __future__ import annotations

import hashlib
import logging

from refcut_backend.core.extra_params import as_text, read_extra_params
from refcut_backend.database.projects import Projects
from refcut_backend.errors import ConfigError
from refcut_backend.store.references import References

log = logging.getLogger("refcut.references")

_NOTHING_SAID = hashlib.sha256(b"").hexdigest()


def follow_extra_params(references: References, projects: Projects, project_id: int, said: object) -> bool:
    """Makes the owner's rules what the extra parameters say, when they have changed; returns whether they have.

    Parameters that cannot be read are logged once, and the last ones that could be read stay in force.
    """
    text = "" if said is None else as_text(said)
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    if digest == (projects.extra_params_digest(project_id) or _NOTHING_SAID):
        return False
    try:
        found = read_extra_params(said)
    except ConfigError as error:
        log.warning("extra parameters not used", extra={"project": project_id, "problem": str(error)})
        projects.set_extra_params_digest(project_id, digest)
        return False
    if found.unknown_keys:
        log.warning(
            "extra parameters with keys that mean nothing here",
            extra={"project": project_id, "keys": list(found.unknown_keys)},
        )
    references.rules.replace_extra_params(project_id, found.rules)
    references.drop_unnamed(project_id)
    references.annotations.compare_anew(project_id, [rule.task_id for rule in found.rules if rule.task_id])
    projects.set_extra_params_digest(project_id, digest)
    log.info("extra parameters taken", extra={"project": project_id, "rules": len(found.rules)})
    return True
