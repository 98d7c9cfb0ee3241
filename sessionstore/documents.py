"""A small store of documents beside the sessions: JSON and markdown, by category and name."""

from __future__ import annotations

from sessionstore import codec, telemetry
from sessionstore.checks import check_document_category, check_document_name, check_text
from sessionstore.codec import Encoded, InvalidValue, Json
from sessionstore.errors import InvalidMessageError
from sessionstore.handle import Handle
from sessionstore.units import documents as units


@telemetry.told
class DocumentRepository(Handle):
    """The documents of one tenant. JSON and markdown of one name are two documents."""

    async def save_markdown(self, category: str, name: str, *, text: str) -> None:
        """Store a text, over the one there is.

        Raises:
            InvalidArgumentError: the category, the name, or a text with U+0000 or a lone surrogate.
        """
        text = check_text(text, "text", max_bytes=self.settings.max_body_bytes)
        # A text may need six bytes a character in JSON; it was measured before.
        body = self._encoded(text, 6 * self.settings.max_body_bytes + 2)
        await self._save(category, name, units.MARKDOWN, body)

    async def find_markdown(self, category: str, name: str) -> str | None:
        """Return a text, or None."""
        found = await self._find(category, name, units.MARKDOWN)
        return found if isinstance(found, str) else None

    async def save_json(self, category: str, name: str, *, value: Json) -> None:
        """Store a JSON value, over the one there is.

        Raises:
            InvalidArgumentError: the category or the name.
            InvalidMessageError: a value that is not JSON, with the path of the fault.
        """
        await self._save(category, name, units.JSON, self._encoded(value, self.settings.max_body_bytes))

    async def find_json(self, category: str, name: str) -> Json | None:
        """Return a JSON value, or None."""
        return await self._find(category, name, units.JSON)

    async def list_category(self, category: str) -> list[str]:
        """List the names of a category by code point, one twice where both formats exist; not of those below it."""
        return await self._run(units.list_category(self.tenant, check_document_category(category)))

    async def delete(self, category: str, name: str) -> bool:
        """Delete the JSON document of that name; if there is none the markdown one; False if there is neither."""
        return await self._run(units.delete(self.tenant, *_checked(category, name)))

    def _encoded(self, value: Json, max_bytes: int) -> Encoded:
        try:
            return codec.encode(value, max_bytes=max_bytes, max_depth=self.settings.max_depth)
        except InvalidValue as fault:
            raise InvalidMessageError(fault.path, fault.reason) from None

    async def _save(self, category: str, name: str, format_: str, body: Encoded) -> None:
        await self._run(units.save(self.tenant, *_checked(category, name), format_, body))

    async def _find(self, category: str, name: str, format_: str) -> Json | None:
        found = await self._run(units.find(self.tenant, *_checked(category, name), format_))
        return None if found is None else found[0]


def _checked(category: str, name: str) -> tuple[str, str]:
    return check_document_category(category), check_document_name(name)
