"""Writes 300 invented reviews in German and Turkish, and a tiny Qwen3 with a chat template, into the current folder.

The reviews are put together from a few words, so a classifier of characters solves them; the model has two blocks and
random weights. Both only show the way from a folder of files to a report.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path

from whichlora.testing import save_tiny_model

OPINIONS = {
    "de": ("schrecklich", "enttäuschend", "in Ordnung", "gut", "großartig"),
    "tr": ("berbat", "kötü", "idare eder", "iyi", "harika"),
}
THINGS = {
    "de": ("Der Kopfhörer", "Die Lampe", "Das Buch", "Der Stuhl", "Die Jacke"),
    "tr": ("Kulaklık", "Lamba", "Kitap", "Sandalye", "Ceket"),
}
REMARKS = {
    "de": ("", " Die Lieferung war schnell.", " Der Preis ist fair.", " Die Farbe gefällt mir."),
    "tr": ("", " Kargo hızlıydı.", " Fiyatı uygun.", " Rengi hoşuma gitti."),
}
PRICES = {"de": " Gekauft für {} Euro.", "tr": " {} liraya aldım."}
SENTENCES = {"de": "{} ist {}.", "tr": "{} {}."}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def write_reviews() -> None:
    """Write 100 training and 50 test reviews a language, of 25 products."""
    rng = random.Random(1)
    for language in OPINIONS:
        for split, count in (("train", 100), ("test", 50)):
            with Path(f"{split}-{language}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(("id", "review", "stars", "product"))
                for number in range(count):
                    stars = rng.randrange(5)
                    text = SENTENCES[language].format(rng.choice(THINGS[language]), OPINIONS[language][stars])
                    review = text + rng.choice(REMARKS[language]) + PRICES[language].format(rng.randrange(5, 500))
                    writer.writerow((f"{split}-{number}", review, stars + 1, f"product-{number % 25}"))


if __name__ == "__main__":
    write_reviews()
    folder = save_tiny_model(Path("tiny-qwen3"), config="Qwen3Config")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
