"""What a reader of a report's page gets."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects tags, visible text and the data element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.links, self.text, self.data, self._inside = [], [], "", "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.links += [values[k] for k in ("src", "href") if k in values]
        if tag == "script":
            self._inside = values.get("id", "code")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "data":
            self.data += data
        elif not self._inside:
            self.text += data
