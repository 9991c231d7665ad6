"""Defines all instruction prompts, in English and in the languages of the tasks.

Increment the version when a text changes, so that results of different prompts are never mixed. The translations have
not been checked by native speakers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PromptLanguage = Literal["en", "item"]
PROMPT_LANGUAGES: tuple[PromptLanguage, ...] = ("en", "item")
"""Allowed languages of instruction and labels: English, or the language of each item."""

NLI_VERSION = "nli-1"
QA_VERSION = "qa-1"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt template: an instruction, two headed texts and the heading of the answer.

    Attributes:
        instruction: a format string with one placeholder per label, in order.
        names: headings of the first text, the second text and the answer.
        labels: words for the task's labels, in the task's order; no word is a prefix of another.
    """

    instruction: str
    names: tuple[str, str, str]
    labels: tuple[str, ...] = ()

    def text(self, first: str, second: str) -> str:
        """Return the full prompt, which ends where the answer begins."""
        one, two, answer = self.names
        return f"{self.instruction.format(*self.labels)}\n{one}: {first}\n{two}: {second}\n{answer}:"


NLI = {
    "en": Prompt(
        "Given the premise, label the hypothesis {}, {} or {}.",
        ("Premise", "Hypothesis", "Label"),
        ("entailment", "neutral", "contradiction"),
    ),
    "ar": Prompt(
        "بناءً على المقدمة، صنّف الفرضية: {} أو {} أو {}.",
        ("المقدمة", "الفرضية", "التصنيف"),
        ("استلزام", "حياد", "تناقض"),
    ),
    "bg": Prompt(
        "Според предпоставката определи хипотезата: {}, {} или {}.",
        ("Предпоставка", "Хипотеза", "Етикет"),
        ("следствие", "неутрално", "противоречие"),
    ),
    "bn": Prompt(
        "আশ্রয়বাক্য অনুযায়ী অনুমানটিকে চিহ্নিত করুন: {}, {} বা {}।",
        ("আশ্রয়বাক্য", "অনুমান", "লেবেল"),
        ("অনুসিদ্ধান্ত", "নিরপেক্ষ", "বিরোধ"),
    ),
    "de": Prompt(
        "Ordne die Hypothese anhand der Prämisse ein: {}, {} oder {}.",
        ("Prämisse", "Hypothese", "Einordnung"),
        ("Folgerung", "neutral", "Widerspruch"),
    ),
    "el": Prompt(
        "Με βάση την προκείμενη, χαρακτήρισε την υπόθεση: {}, {} ή {}.",
        ("Προκείμενη", "Υπόθεση", "Χαρακτηρισμός"),
        ("συνεπαγωγή", "ουδέτερη", "αντίφαση"),
    ),
    "es": Prompt(
        "A partir de la premisa, clasifica la hipótesis: {}, {} o {}.",
        ("Premisa", "Hipótesis", "Etiqueta"),
        ("implicación", "neutral", "contradicción"),
    ),
    "fi": Prompt(
        "Luokittele hypoteesi premissin perusteella: {}, {} tai {}.",
        ("Premissi", "Hypoteesi", "Luokka"),
        ("seuraus", "neutraali", "ristiriita"),
    ),
    "fr": Prompt(
        "À partir de la prémisse, classe l'hypothèse : {}, {} ou {}.",
        ("Prémisse", "Hypothèse", "Étiquette"),
        ("implication", "neutre", "contradiction"),
    ),
    "hi": Prompt(
        "आधार वाक्य के अनुसार परिकल्पना को {}, {} या {} बताइए।",
        ("आधार वाक्य", "परिकल्पना", "लेबल"),
        ("निहितार्थ", "तटस्थ", "विरोध"),
    ),
    "id": Prompt(
        "Berdasarkan premis, tentukan label hipotesis: {}, {}, atau {}.",
        ("Premis", "Hipotesis", "Label"),
        ("implikasi", "netral", "kontradiksi"),
    ),
    "ko": Prompt(
        "전제를 바탕으로 가설을 {}, {}, {} 중 하나로 분류하시오.",
        ("전제", "가설", "분류"),
        ("함의", "중립", "모순"),
    ),
    "ru": Prompt(
        "На основании посылки классифицируй гипотезу: {}, {} или {}.",
        ("Посылка", "Гипотеза", "Метка"),
        ("следствие", "нейтрально", "противоречие"),
    ),
    "sw": Prompt(
        "Kwa kuzingatia msingi, ainisha dhana: {}, {} au {}.",
        ("Msingi", "Dhana", "Aina"),
        ("inafuata", "haijulikani", "inapinga"),
    ),
    "te": Prompt(
        "ఆధార వాక్యాన్ని బట్టి పరికల్పనను {}, {} లేదా {} గా గుర్తించండి.",
        ("ఆధార వాక్యం", "పరికల్పన", "లేబుల్"),
        ("అనుసరణ", "తటస్థం", "వైరుధ్యం"),
    ),
    "th": Prompt(
        "จากข้อความตั้งต้น ให้จัดประเภทสมมติฐานเป็น {} {} หรือ {}",
        ("ข้อความตั้งต้น", "สมมติฐาน", "ประเภท"),
        ("สอดคล้อง", "เป็นกลาง", "ขัดแย้ง"),
    ),
    "tr": Prompt(
        "Öncüle göre hipotezi sınıflandır: {}, {} veya {}.",
        ("Öncül", "Hipotez", "Etiket"),
        ("gerektirme", "nötr", "çelişki"),
    ),
    "ur": Prompt(
        "مقدمے کی بنیاد پر مفروضے کو {}، {} یا {} قرار دیں۔",
        ("مقدمہ", "مفروضہ", "لیبل"),
        ("استلزام", "غیر جانبدار", "تضاد"),
    ),
    "vi": Prompt(
        "Dựa vào tiền đề, hãy phân loại giả thuyết: {}, {} hoặc {}.",
        ("Tiền đề", "Giả thuyết", "Nhãn"),
        ("kéo theo", "trung lập", "mâu thuẫn"),
    ),
    "zh": Prompt(
        "根据前提，判断假设属于{}、{}还是{}。",
        ("前提", "假设", "标签"),
        ("蕴含", "中立", "矛盾"),
    ),
}
"""Prompts for natural language inference, by language; labels in the order entailment, neutral, contradiction."""

QA = {
    "en": Prompt("Answer the question with words from the passage.", ("Passage", "Question", "Answer")),
    "ar": Prompt("أجب عن السؤال بكلمات من النص.", ("النص", "السؤال", "الجواب")),
    "bg": Prompt("Отговори на въпроса с думи от текста.", ("Текст", "Въпрос", "Отговор")),
    "bn": Prompt("অনুচ্ছেদের শব্দ দিয়ে প্রশ্নের উত্তর দিন।", ("অনুচ্ছেদ", "প্রশ্ন", "উত্তর")),
    "de": Prompt("Beantworte die Frage mit Wörtern aus dem Text.", ("Text", "Frage", "Antwort")),
    "el": Prompt("Απάντησε στην ερώτηση με λέξεις από το κείμενο.", ("Κείμενο", "Ερώτηση", "Απάντηση")),
    "es": Prompt("Responde a la pregunta con palabras del texto.", ("Texto", "Pregunta", "Respuesta")),
    "fi": Prompt("Vastaa kysymykseen tekstin sanoilla.", ("Teksti", "Kysymys", "Vastaus")),
    "fr": Prompt("Réponds à la question avec des mots du texte.", ("Texte", "Question", "Réponse")),
    "hi": Prompt("अनुच्छेद के शब्दों से प्रश्न का उत्तर दीजिए।", ("अनुच्छेद", "प्रश्न", "उत्तर")),
    "id": Prompt("Jawab pertanyaan dengan kata-kata dari teks.", ("Teks", "Pertanyaan", "Jawaban")),
    "ko": Prompt("지문에 있는 말로 질문에 답하시오.", ("지문", "질문", "답")),
    "ru": Prompt("Ответь на вопрос словами из текста.", ("Текст", "Вопрос", "Ответ")),
    "sw": Prompt("Jibu swali kwa maneno kutoka kwenye kifungu.", ("Kifungu", "Swali", "Jibu")),
    "te": Prompt("పాఠ్యంలోని పదాలతో ప్రశ్నకు సమాధానం ఇవ్వండి.", ("పాఠ్యం", "ప్రశ్న", "సమాధానం")),
    "th": Prompt("ตอบคำถามด้วยคำจากข้อความ", ("ข้อความ", "คำถาม", "คำตอบ")),
    "tr": Prompt("Soruyu metindeki kelimelerle yanıtla.", ("Metin", "Soru", "Yanıt")),
    "ur": Prompt("عبارت کے الفاظ سے سوال کا جواب دیں۔", ("عبارت", "سوال", "جواب")),
    "vi": Prompt("Trả lời câu hỏi bằng các từ trong đoạn văn.", ("Đoạn văn", "Câu hỏi", "Trả lời")),
    "zh": Prompt("用文章中的词语回答问题。", ("文章", "问题", "答案")),
}
"""Prompts for extractive question answering, by language."""
