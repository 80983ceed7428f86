"""Warnings and refusals of images that the engines of the description cannot load."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

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

ReadDocument = Callable[[ImageJob], bytes]
"""Returns a document of an image, or nothing if it is not there yet."""


class Loading:
    """The engines that shall load each image. `requests` may have a reference more than once.

    `choices` are the values of `engine`.
    """

    def __init__(self, requests: Iterable[ImageRequest], choices: Sequence[Choice] = ()) -> None:
        self._choices = choices
        self._checked: set[tuple[Reference, str]] = set()
        self._uses: dict[Reference, list[Use]] = {}
        for request in requests:
            self._uses.setdefault(request.reference, []).extend(request.uses)

    def check_documents(self, jobs: Iterable[ImageJob], manifest: ReadDocument, config: ReadDocument) -> None:
        """Check what manifests and configurations show, before any layer is fetched.

        A configuration that `config` does not have yet is checked with the layers.

        :raises DescriptionError: no engine that the description names can load an image that it wants to be loaded.
        """
        self._report(
            (job, (*quirk.find(document), *self._find_in_config(job, document, config)))
            for job, document in self._manifests(jobs, manifest)
        )

    def check_layers(
        self,
        jobs: Iterable[ImageJob],
        manifest: ReadDocument,
        config: ReadDocument,
        read_start: Callable[[Descriptor], bytes],
    ) -> None:
        """Check what only the bytes of layers show; `read_start` returns the first of them.

        :raises DescriptionError: as `check_documents`.
        """
        self._report(
            (job, (*self._find_in_config(job, document, config), *quirk.find_in_layers(document, read_start)))
            for job, document in self._manifests(jobs, manifest)
        )

    def _find_in_config(self, job: ImageJob, manifest: Manifest, config: ReadDocument) -> Sequence[Found]:
        key = (job.reference, job.arch)
        if key in self._checked or not (content := config(job)):
            return ()
        self._checked.add(key)
        return quirk.find_in_config(content, manifest)

    def _report(self, found: Iterable[tuple[ImageJob, Sequence[Found]]]) -> None:
        problems: list[str] = []
        for job, quirks in found:
            for each in self._judge(job, quirks):
                if each.is_hopeless:
                    problems.append(f"{each.where}: {each.why}; {each.fix}")
                else:
                    logger.warning("%s: %s; %s", each.where, each.why, each.fix)
        if problems:
            raise DescriptionError(*dict.fromkeys(problems))

    def _judge(self, job: ImageJob, found: Sequence[Found]) -> tuple[Judgement, ...]:
        uses = self._uses.get(job.reference, ())
        return judge(job.reference, job.arch, uses, found, self._choices) if found else ()

    def _manifests(self, jobs: Iterable[ImageJob], read: ReadDocument) -> Iterator[tuple[ImageJob, Manifest]]:
        """Yield the jobs for images that the description uses, with their manifests."""
        for job in jobs:
            if not any(use.arch == job.arch for use in self._uses.get(job.reference, ())):
                continue
            try:
                document = parse_document(read(job), job.image.manifest.media_type, str(job.reference))
            except ValueError:  # reported when the chain of digests is checked
                continue
            if isinstance(document, Manifest):
                yield job, document
