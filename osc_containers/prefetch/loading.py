"""Warnings and refusals of images that the engines of the description cannot load."""

import logging
from collections.abc import Callable, Iterable, Sequence

from osc_containers.errors import DescriptionError
from osc_containers.obs.engines import Choice
from osc_containers.obs.loadability import Judgement, judge
from osc_containers.obs.selection import ImageRequest, Use
from osc_containers.oci import quirk
from osc_containers.oci.manifest import Descriptor, Manifest, parse_document
from osc_containers.oci.quirk import Found
from osc_containers.oci.reference import Reference
from osc_containers.prefetch.plan import ImageJob

logger = logging.getLogger(__name__)


class Loading:
    """The engines that shall load each image. `requests` may have a reference more than once.

    `choices` are the values of `engine`.
    """

    def __init__(self, requests: Iterable[ImageRequest], choices: Sequence[Choice] = ()) -> None:
        self._choices = choices
        self._uses: dict[Reference, list[Use]] = {}
        for request in requests:
            self._uses.setdefault(request.reference, []).extend(request.uses)

    def check_manifests(self, jobs: Iterable[ImageJob], read: Callable[[ImageJob], bytes]) -> None:
        """Check what manifests show, before any layer is fetched; `read` returns the manifest of an image.

        :raises DescriptionError: no engine that the description names can load an image that it wants to be loaded.
        """
        problems: list[str] = []
        for job in jobs:
            manifest = self._manifest(job, read)
            for each in self._judge(job, quirk.find(manifest) if manifest else ()):
                if each.is_hopeless:
                    problems.append(f"{each.where}: {each.why}; {each.fix}")
                else:
                    logger.warning("%s: %s; %s", each.where, each.why, each.fix)
        if problems:
            raise DescriptionError(*dict.fromkeys(problems))

    def check_layers(
        self, jobs: Iterable[ImageJob], read: Callable[[ImageJob], bytes], read_start: Callable[[Descriptor], bytes]
    ) -> None:
        """Warn of what only the bytes of layers show; `read_start` returns the first of them."""
        for job in jobs:
            manifest = self._manifest(job, read)
            found = quirk.find_hidden_compression(manifest, read_start) if manifest else ()
            for each in self._judge(job, found):
                logger.warning("%s: %s; %s", each.where, each.why, each.fix)

    def _judge(self, job: ImageJob, found: Sequence[Found]) -> tuple[Judgement, ...]:
        uses = self._uses.get(job.reference, ())
        return judge(job.reference, job.arch, uses, found, self._choices) if found else ()

    def _manifest(self, job: ImageJob, read: Callable[[ImageJob], bytes]) -> Manifest | None:
        if not any(use.arch == job.arch for use in self._uses.get(job.reference, ())):
            return None
        try:
            document = parse_document(read(job), job.image.manifest.media_type, str(job.reference))
        except ValueError:  # reported when the chain of digests is checked
            return None
        return document if isinstance(document, Manifest) else None
