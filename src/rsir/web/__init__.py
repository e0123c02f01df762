"""The service: archives over HTTP, for programs (REST) and for people (a page)."""
