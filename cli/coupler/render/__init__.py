"""The model → cloud-config text. Pure: no clock, no network, no environment; the same model, the same bytes."""

from coupler.render.document import Document, document, render_boot_stub, render_document

__all__ = ["Document", "document", "render_boot_stub", "render_document"]
