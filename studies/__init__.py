"""What answered one question once: `python -m studies.NAME --help`; the answers stand in docs/."""
