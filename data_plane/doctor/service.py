"""All checks of a node, in the order in which a person thinks of them."""

from data_plane.doctor.database import Database
from data_plane.doctor.link import Link
from data_plane.doctor.membership import OwnState
from data_plane.doctor.site import site_of
from data_plane.doctor.subject import Subject
from faos_core.checkup import Check
from faos_core.machine import disk_checks


def checks_of(subject: Subject) -> list[Check]:
    """Blocking: reads site.toml."""
    link, own, site = Link(subject), OwnState(subject), site_of(subject)
    database = Check("database", Database(subject).server)
    return [*link.checks(), *disk_checks(subject.data_dir), *own.checks(), database, *site.checks()]
