"""Pictures of records: thumbnails, and pages of cards."""
