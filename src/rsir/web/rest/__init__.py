"""The service for programs: REST under /api."""
