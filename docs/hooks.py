"""Makes pages of the site from files outside of docs/: README.md becomes the home page, each linked file a page.

A link that leaves docs/ thus works on GitHub, where it leads to the file, and in the site, where it leads to a page
with the text of the file (Markdown is rendered), also offline. A link to a folder leads to a page that lists its files.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
HOME, COPIES = "index.md", "repository"
ALWAYS = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/README.md")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".cff": "yaml", ".toml": "toml", ".json": "json"}
_LINK = re.compile(r"(!?\[(?:[^\]\[]|\[[^\]]*\])*\]\()([^)\s#]+)(#[^)\s]*)?\)")
_IMAGE = re.compile(r'(<a [^>]*>\s*)?(<img [^>]*?src="([^"]+)"[^>]*>)')
_NAME = re.compile(r"(?<=<code>)\w+_\w+(?=</code>)")
_CODE = re.compile(r"^(```.*?^```|~~~.*?^~~~)$|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add README.md, the files of `ALWAYS`, and the folders and outside files that any page links, to the site."""
    home = "---\nhide: [navigation]\n---\n" + _text("README.md", HOME)
    files.append(File.generated(config, HOME, content=home))
    wanted, done = list(ALWAYS), set()
    for page in files.documentation_pages():
        source = page.src_uri
        origin = "README.md" if source == HOME else f"docs/{source}"
        wanted += _linked((ROOT / origin).read_text(encoding="utf-8"), origin)
    while wanted:
        path = wanted.pop()
        if path not in done:
            done.add(path)
            files.append(File.generated(config, _place(path), content=_text(path, _place(path))))
            if path.endswith(".md"):
                wanted += _linked((ROOT / path).read_text(encoding="utf-8"), path)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links that leave docs/ to the pages of those files."""
    uri = page.file.src_uri
    return markdown if uri == HOME or uri.startswith(f"{COPIES}/") else _relinked(markdown, f"docs/{uri}", uri)


def on_page_content(html: str, **_: Any) -> str:
    """Lead each image to itself in full size, and let long names be broken after underscores: for narrow screens."""
    html = _IMAGE.sub(lambda found: found[0] if found[1] else f'<a href="{found[3]}">{found[2]}</a>', html)
    return _NAME.sub(lambda found: found[0].replace("_", "_<wbr>"), html)


def _text(path: str, place: str) -> str:
    """Return the page of a file or a folder of the repository."""
    target = ROOT / path
    hidden = "---\nsearch: {exclude: true}\n---\n"
    if target.is_dir():
        entries = sorted(entry.name + "/" * entry.is_dir() for entry in target.iterdir() if entry.name[0] not in "._")
        entries = [name for name in entries if not (name.endswith(".html") and name[:-4] + "md" in entries)]
        inside = path.startswith("docs/")
        shown = [f"[{name}]({name})" if inside and name[-1] != "/" else f"`{name}`" for name in entries]
        return f"{hidden}# {path}\n\n" + "\n".join(f"- {entry}" for entry in shown)
    text = target.read_text(encoding="utf-8")
    if path.endswith(".md"):
        return _relinked(text, path, place)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{hidden}# {path}\n\n{fence}{LANGUAGES.get(target.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"


def _place(path: str) -> str:
    """Return the place in the site, as if below docs/, of a file or folder of the repository."""
    if path == "README.md":
        return HOME
    inside = path.startswith("docs/")
    place = path.removeprefix("docs/") if inside else f"{COPIES}/{path}"
    if (ROOT / path).is_dir():
        return f"{place}/index.md"
    return place if inside or path.endswith(".md") else f"{place}.md"


def _links(text: str) -> list[re.Match[str]]:
    """Return the relative links of a page, without those in code."""
    code = [match.span() for match in _CODE.finditer(text)]
    found = _LINK.finditer(text)
    return [m for m in found if ":" not in m[2] and not any(low <= m.start() < high for low, high in code)]


def _target(link: str, origin: str) -> str:
    """Return the path in the repository of a link in a file.

    Raises:
        PluginError: it has no such file or folder.
    """
    path = (ROOT / origin).parent.joinpath(link).resolve()
    if not path.exists() or not path.is_relative_to(ROOT):
        raise PluginError(f"{origin}: there is no {link}")
    return path.relative_to(ROOT).as_posix()


def _linked(text: str, origin: str) -> list[str]:
    """Return the linked files outside of docs/ and the linked folders, as paths in the repository."""
    targets = [_target(match[2], origin) for match in _links(text)]
    return [t for t in targets if t != "README.md" and ((ROOT / t).is_dir() or not t.startswith("docs/"))]


def _relinked(text: str, origin: str, place: str) -> str:
    """Return a page with its links changed to those between pages of the site."""
    for match in reversed(_links(text)):
        link = _relative(_place(_target(match[2], origin)), place)
        text = f"{text[: match.start()]}{match[1]}{link}{match[3] or ''}){text[match.end() :]}"
    return text


def _relative(uri: str, place: str) -> str:
    """Return the relative link from one page to another."""
    return posixpath.relpath(uri, posixpath.dirname(place) or ".")
