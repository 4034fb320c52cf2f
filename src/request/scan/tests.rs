//! Tests of the walk over a request.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct Texts(Vec<String>);

impl TextSink for Texts {
    fn text(&mut self, text: &str) -> bool {
        self.0.push(text.to_owned());
        self.0.len() < 100
    }
}

fn scanned(body: &str) -> (RequestFacts, Vec<String>) {
    let mut texts = Texts::default();
    let findings = scan(body.as_bytes(), &mut texts).unwrap();
    (findings, texts.0)
}

fn output(findings: &RequestFacts) -> Option<i64> {
    findings.max_output.as_ref().map(|output| output.tokens)
}

#[test]
fn where_the_output_limit_stands() {
    for (body, number) in [
        (r#"{"generationConfig":{"maxOutputTokens": 70000 }}"#, "70000"),
        (r#"{"max_tokens":-1}"#, "-1"),
        (r#"{"max_completion_tokens":5.0}"#, "5.0"),
        (r#"{"generation_config":{"max_output_tokens":"12"}}"#, "\"12\""),
    ] {
        let found = scanned(body).0.max_output.unwrap();
        assert_eq!((&body[found.at], found.tokens.to_string()), (number, number.trim_matches('"').replace(".0", "")));
    }
    for body in
        [r#"{"max_tokens":"many"}"#, r#"{"max_tokens":null}"#, r#"{"max_tokens":{}}"#, r#"{"max_tokens":"NaN"}"#, "{}"]
    {
        assert_eq!(scanned(body).0.max_output, None, "{body}");
    }
    let both = r#"{"max_tokens":5,"max_completion_tokens":null}"#;
    assert_eq!(output(&scanned(both).0), Some(5));
}

#[test]
fn the_texts_of_a_request_are_found_and_nothing_else() {
    let schema = json!({"type": "OBJECT", "title": "no", "description": "d", "required": ["r"], "nullable": true,
        "properties": {"p": {"type": "STRING", "format": "f", "enum": ["e1", "e2"]}, "q": {"items": {"description": "i"}}},
        "example": {"k": "v"}});
    let camel = json!({
        "contents": [
            {"role": "user", "parts": [{"text": "one", "thought": true, "thoughtSignature": "no"}, {"text": "two é\n"}]},
            {"role": "model", "parts": [{"functionCall": {"id": "no", "name": "call", "args": {"a": ["b", {"c": "d"}], "n": 1}}}]},
            {"parts": [{"functionResponse": {"name": "resp", "response": {"x": true, "y": "z"}}}, {"executableCode": {"code": "no"}}]},
        ],
        "tools": [{"functionDeclarations": [{"name": "fn", "description": "desc", "parameters": schema}]}, {"googleSearch": {}}],
        "generationConfig": {"responseSchema": {"description": "rs"}, "maxOutputTokens": 10, "stopSequences": ["no"]},
        "systemInstruction": {"parts": [{"text": "sys"}]},
        "safetySettings": [{"category": "no"}],
    });
    let (findings, texts) = scanned(&camel.to_string());
    let mut sorted = texts.clone();
    sorted.sort_unstable();
    let mut expected = [
        "one", "two é\n", "call", "a", "b", "c", "d", "n", "resp", "x", "y", "z", "fn", "desc", "d", "r", "p", "f",
        "e1", "e2", "q", "i", "k", "v", "rs", "sys",
    ];
    expected.sort_unstable();
    assert_eq!(sorted, expected);
    assert_eq!((findings.contents, findings.turns, findings.has_tools), (Contents::Present, 4, true));
    assert_eq!(output(&findings), Some(10));

    // In snake case, in the wrapper of countTokens, and in a batch of embeddings.
    let snake = json!({"generate_content_request": {"model": "no", "system_instruction": {"parts": [{"text": "s"}]},
        "generation_config": {"max_output_tokens": "7"}, "contents": [{"parts": [{"function_call": {"name": "n"}}]}]}});
    let (findings, mut texts) = scanned(&snake.to_string());
    texts.sort_unstable();
    assert_eq!((texts, output(&findings)), (vec!["n".into(), "s".into()], Some(7)));
    let batch = json!({"requests": [{"model": "no", "content": {"parts": [{"text": "a"}]}}, {"content": {"parts": [{"text": "b"}]}}]});
    assert_eq!(scanned(&batch.to_string()).1, ["a", "b"]);
}

#[test]
fn what_googles_own_counter_counts_is_found_and_what_it_does_not_is_not() {
    let request = r#"{
        "model": "no", "labels": {"no": "no"}, "safetySettings": [{"category": "no"}], "toolConfig": {"mode": "no"},
        "contents": [
            {"role": "no", "parts": [
                {"text": "a", "thoughtSignature": "no"},
                {"functionCall": {"name": "b", "args": {"c": "d", "e": [1, "f", {"g": true}], "h": null}, "id": "no"}},
                {"function_response": {"name": "i", "response": {"j": "k"}, "parts": [{"text": "no"}]}},
                {"executableCode": {"code": "no"}}, {"inlineData": {"mimeType": "no", "data": "no"}}
            ]}
        ],
        "tools": [
            {"functionDeclarations": [{"name": "l", "description": "m", "behavior": "no",
                "parametersJsonSchema": {"title": "no"},
                "parameters": {"type": "no", "format": "n", "description": "o", "enum": ["p", "q"], "required": ["r"],
                    "title": "no", "default": "no", "propertyOrdering": ["no"], "anyOf": [{"description": "no"}],
                    "items": {"format": "s"}, "properties": {"t": {"description": "u"}}, "example": {"v": "w"}},
                "response": {"description": "x"}}]},
            {"googleSearch": {"no": "no"}}
        ],
        "generationConfig": {"stopSequences": ["no"], "responseSchema": {"enum": ["y"]},
            "responseJsonSchema": {"no": "no"}},
        "systemInstruction": {"parts": [{"te\u0078t": "\u007a"}]}
    }"#;
    assert_eq!(scanned(request).1.concat(), "abcdefghijklmnopqrstuvwxyz");
    // One object stands for a list of one.
    let bare = r#"{"contents": {"parts": {"text": "a"}}, "tools": {"functionDeclarations": {"name": "b"}}}"#;
    assert_eq!(scanned(bare).1, ["a", "b"]);
    for end in 0..request.trim_end().len() {
        assert!(scan(request.as_bytes().get(..end).unwrap(), &mut Texts::default()).is_err(), "{end}");
    }
}

#[test]
fn the_compatible_surface_is_read_too() {
    let body = json!({"model": "no", "max_tokens": 5, "messages": [
        {"role": "system", "content": "sys"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "https://x/y"}}]},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "no", "function": {"name": "f", "arguments": "{}"}}]},
    ], "tools": [{"type": "function", "function": {"name": "g", "description": "d", "parameters": {"properties": {"p": {}}}}}]});
    let (findings, mut texts) = scanned(&body.to_string());
    texts.sort_unstable();
    assert_eq!(texts, ["d", "f", "g", "hi", "p", "sys", "{}"]);
    assert_eq!((findings.turns, findings.media.uncounted, output(&findings)), (3, 1, Some(5)));
    assert_eq!(scanned(&json!({"input": ["a", "b"]}).to_string()).1, ["a", "b"]);
    assert_eq!(scanned(&json!({"input": "a"}).to_string()).1, ["a"]);
}

#[test]
fn whether_there_is_anything_to_answer() {
    for (body, contents) in [
        ("{}", Contents::Missing),
        (r#"{"contents":[]}"#, Contents::Empty),
        (r#"{"contents":null}"#, Contents::Empty),
        (r#"{"contents":[{"role":"user"}]}"#, Contents::Empty),
        (r#"{"contents":[{"parts":[]}]}"#, Contents::Empty),
        (r#"{"contents":[{"parts":[{"text":"x"}]}]}"#, Contents::Present),
        (r#"{"contents":[{"parts":[{"text":""}]}]}"#, Contents::Present),
        (r#"{"contents":[{"parts":[{"newKind":{}}]}]}"#, Contents::Present),
        (r#"{"contents":{"parts":{"text":"x"}}}"#, Contents::Present),
        (r#"{"contents":"x"}"#, Contents::Present),
        (r#"{"messages":[]}"#, Contents::Empty),
        (r#"{"messages":[{"role":"user","content":"x"}]}"#, Contents::Present),
        (r#"{"input":"x"}"#, Contents::Present),
        (r#"{"content":{"parts":[{"inlineData":{"data":"AA=="}}]}}"#, Contents::Present),
        // An unknown member may be content.
        (r#"{"contents":{"parts":{"newKind":{}}}}"#, Contents::Present),
        (r#"{"contents":[{"newParts":[]}]}"#, Contents::Present),
        (r#"{"instances":[{"prompt":"x"}]}"#, Contents::Present),
        (r#"{"messages":[{"role":"assistant","content":null}]}"#, Contents::Empty),
        (r#"{"messages":[{"role":"assistant","name":"n","content":null,"function_call":{}}]}"#, Contents::Present),
        (r#"{"messages":[{"role":"assistant","content":null,"refusal":"no"}]}"#, Contents::Present),
        (r#"{"messages":[{"role":"user","content":""}]}"#, Contents::Present),
        // Tokens in place of texts.
        (r#"{"input":[1,2,3]}"#, Contents::Present),
        (r#"{"input":[[1,2],[3]]}"#, Contents::Present),
        (r#"{"input":""}"#, Contents::Empty),
        (r#"{"contents":[],"systemInstruction":{"parts":[{"text":"x"}]}}"#, Contents::Empty),
    ] {
        assert_eq!(scanned(body).0.contents, contents, "{body}");
    }
}

#[test]
fn numbers_are_not_heard_however_they_are_kept() {
    let kept = r#"{"contents":[{"parts":[{"functionCall":{"args":{"n":{"$serde_json::private::Number":"12"}}}}]}]}"#;
    assert_eq!(scanned(kept).1, ["n"]);
}

#[test]
fn what_only_googles_reader_takes_is_odd_and_what_nobody_takes_is_malformed() {
    for odd in [
        "{\"contents\":[1,]}",
        "{\"contents\":[1],}",
        "{'contents':[1]}",
        "{contents:[1]}",
        "{\"contents\":'x'}",
        "{\"contents\":\"a\nb\"}",
        "{\"contents\":\"it\\'s\"}",
        "{\"contents\":\"\\ud83d\"}",
        "{\"contents\":}",
        "{\"contents\":0x1F}",
        "{\"contents\":[1,,2]}",
        "{\"contents\":NaN}",
        "{\"contents\":1e999}",
        "{\"contents\"\u{c}:1}",
        "\u{feff}{}",
        "// comment\n{}",
        "{\"contents\":[{\"parts\":[{\"inlineData\":{\"data\":null}}]}]}",
    ] {
        let read = scan(odd.as_bytes(), &mut Texts::default());
        assert!(matches!(read, Err(Unread::Odd)), "{odd:?}: {read:?}");
    }
    for malformed in [
        "",
        "{",
        "{\"a\":[}",
        "{\"a\":[1,}",
        "{\"a\" 1}",
        "{\"a\":\"b\" \"c\"}",
        "[\"a\"}",
        "{\"a\":[\"b\"}",
        "{}}",
        "{\"a\":\"b",
        "not json",
        "hello",
        "{not json}",
        "{\"a\": hello}",
        "[1 2]",
        "{'a': 'b' 'c'}",
        "{\"a\": 1}}",
        "<html></html>",
        "model=x&prompt=y",
    ] {
        let read = scan(malformed.as_bytes(), &mut Texts::default());
        assert!(matches!(read, Err(Unread::Malformed { .. })), "{malformed:?}: {read:?}");
    }
    assert!(scan(b"{\"a\":\"\xff\"}", &mut Texts::default()).is_ok(), "skipped");
    assert!(matches!(scan(b"{\"contents\":\"\xff\"}", &mut Texts::default()), Err(Unread::Odd)));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let broken = "{\n  \"contents\": [\n    {\"parts\": [}\n  ]\n}";
    let Err(Unread::Malformed { line: 3, column, message }) = scan(broken.as_bytes(), &mut Texts::default()) else {
        panic!()
    };
    assert!(column >= 15 && message.contains("expected") && !message.contains("line"), "{column} {message}");
    assert!(matches!(scan(b"{} x", &mut Texts::default()), Err(Unread::Malformed { line: 1, column: 4, .. })));
    let deep = format!("{{\"contents\":{}{}}}", "[".repeat(300), "]".repeat(300));
    let read = scan(deep.as_bytes(), &mut Texts::default());
    assert!(matches!(read, Ok(_) | Err(Unread::TooDeep)), "{read:?}");
    let many = format!("{{\"contents\":[{{\"parts\":[{}]}}]}}", vec![r#"{"text":"x"}"#; 200].join(","));
    assert!(matches!(scan(many.as_bytes(), &mut Texts::default()), Err(Unread::Enough)));
}

/// Reads a tree of the body, place by place: slow, and easy to follow.
mod plain {
    use serde_json::Value;

    /// The members of an object that have one of these names.
    fn members<'v>(value: &'v Value, names: &'static [&'static str]) -> impl Iterator<Item = &'v Value> {
        let object = value.as_object().into_iter().flatten();
        object.filter(move |(key, _)| names.contains(&key.as_str())).map(|(_, value)| value)
    }

    /// A list's elements, or the one that is in no list.
    fn each(value: &Value) -> impl Iterator<Item = &Value> {
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        list.iter()
    }

    pub(super) fn texts(request: &Value) -> Vec<String> {
        let mut texts = Vec::new();
        for contents in members(request, &["contents"]) {
            each(contents).for_each(|content| said(content, &mut texts));
        }
        members(request, &["systemInstruction"]).for_each(|content| said(content, &mut texts));
        texts.sort_unstable();
        texts
    }

    fn said(content: &Value, texts: &mut Vec<String>) {
        texts.extend(content.as_str().map(str::to_owned));
        members(content, &["text"]).for_each(|text| strings(text, texts));
        for part in members(content, &["parts"]).flat_map(each) {
            texts.extend(part.as_str().map(str::to_owned));
            members(part, &["text"]).for_each(|text| strings(text, texts));
            for call in members(part, &["functionCall", "function_call"]) {
                members(call, &["name"]).for_each(|name| strings(name, texts));
                members(call, &["args"]).for_each(|args| dictionary(args, texts));
            }
        }
    }

    /// A text, or texts in lists.
    fn strings(value: &Value, texts: &mut Vec<String>) {
        texts.extend(value.as_str().map(str::to_owned));
        value.as_array().into_iter().flatten().for_each(|value| strings(value, texts));
    }

    fn dictionary(value: &Value, texts: &mut Vec<String>) {
        texts.extend(value.as_str().map(str::to_owned));
        value.as_array().into_iter().flatten().for_each(|value| dictionary(value, texts));
        for (key, value) in value.as_object().into_iter().flatten() {
            texts.push(key.clone());
            dictionary(value, texts);
        }
    }

    /// Returns whether it is certain that there is nothing to answer.
    pub(super) fn is_empty(contents: &Value) -> bool {
        let nothing = |parts: &Value| match parts {
            Value::Null | Value::Bool(_) => true,
            Value::Array(parts) => parts.is_empty(),
            Value::Object(part) => part.is_empty(),
            _ => false,
        };
        let silent = |content: &Value| match content {
            Value::Object(content) => content.iter().all(|(key, value)| match key.as_str() {
                "role" | "name" => true,
                "parts" => nothing(value),
                _ => false,
            }),
            content => nothing(content),
        };
        match contents {
            Value::Array(contents) => contents.iter().all(silent),
            Value::String(text) => text.is_empty(),
            contents => silent(contents),
        }
    }
}

/// Any JSON of few names.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-cé\"\\\\\n]{0,3}".prop_map(Value::from),
    ];
    let names =
        prop::sample::select(vec!["parts", "text", "role", "functionCall", "function_call", "name", "args", "other"]);
    leaf.prop_recursive(6, 64, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(names.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn a_walk_finds_what_a_tree_shows(contents in values(), system in values()) {
        let request = json!({"contents": contents, "systemInstruction": system});
        let (findings, mut texts) = scanned(&request.to_string());
        texts.sort_unstable();
        prop_assert_eq!(texts, plain::texts(&request));
        let expected = if plain::is_empty(&contents) { Contents::Empty } else { Contents::Present };
        prop_assert_eq!(findings.contents, expected, "{}", contents);
    }
}

#[test]
fn the_steps_of_an_interaction_are_read() {
    let steps = json!({
        "model": "no", "system_instruction": "a", "service_tier": "no",
        "input": [
            {"type": "user_input", "content": [{"type": "text", "text": "b"}]},
            {"type": "thought", "signature": "no", "summary": [{"type": "text", "text": "no"}]},
            {"type": "function_call", "id": "no", "name": "no", "arguments": {"c": "d"}},
            {"type": "function_result", "call_id": "no", "result": [{"type": "text", "text": "e"}, {"type": "image", "data": "AAAA", "mime_type": "image/png"}]},
            {"type": "function_result", "call_id": "no", "result": {"f": ["g", 1]}},
            {"type": "function_result", "call_id": "no", "result": "h"},
            {"role": "model", "content": "i"},
            {"role": "user", "content": [{"type": "text", "text": "j"}, {"type": "video", "uri": "no", "mime_type": "video/mp4"}]},
        ],
        "tools": [{"type": "function", "name": "k", "description": "l", "parameters": {"type": "object", "properties": {"m": {"type": "string"}}}},
            {"type": "google_search", "search_types": ["no"]}],
        "generation_config": {"max_output_tokens": 9, "stop_sequences": ["no"]},
    });
    let (findings, mut texts) = scanned(&steps.to_string());
    texts.sort_unstable();
    assert_eq!(texts.concat(), "abcdefghijklm");
    assert_eq!((findings.contents, findings.has_tools, output(&findings)), (Contents::Present, true, Some(9)));
    assert_eq!((findings.media.estimate, findings.media.uncounted), (2 * 258, 1), "an image, and a video elsewhere");

    // A text alone, one content alone, contents without steps; and OpenAI's responses.
    for (body, expected) in [
        (json!({"input": "a"}), "a"),
        (json!({"input": {"type": "text", "text": "a"}}), "a"),
        (json!({"input": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}), "ab"),
        (
            json!({"instructions": "a", "input": [{"role": "user", "content": [{"type": "input_text", "text": "b"}]}, {"type": "function_call", "name": "no", "arguments": "c"}, {"type": "function_call_output", "output": "d"}]}),
            "abcd",
        ),
        (json!({"input": "a", "questions": {"no": {"type": "noul", "instructions": "no"}}}), "a"),
    ] {
        let (findings, mut texts) = scanned(&body.to_string());
        texts.sort_unstable();
        assert_eq!((texts.concat().as_str(), findings.contents), (expected, Contents::Present), "{body}");
    }
    assert!(scanned(r#"{"input": "a", "previous_interaction_id": "x"}"#).0.has_cached_content);
    assert!(!scanned(r#"{"input": "a", "previous_interaction_id": null}"#).0.has_cached_content);
    let image = scanned(&json!({"input": {"type": "image", "data": "AAAA", "mime_type": "image/png"}}).to_string()).0;
    assert_eq!((image.contents, image.media.estimate, image.media.uncounted), (Contents::Present, 258, 0));
}

/// The bytes of all texts, for a reader that needs them, and for one that asks for lengths.
struct TextBytes {
    needs_texts: bool,
    total: usize,
}

impl TextSink for TextBytes {
    fn text(&mut self, text: &str) -> bool {
        self.total += text.len();
        true
    }

    fn needs_texts(&self) -> bool {
        self.needs_texts
    }

    fn length(&mut self, bytes: usize) {
        assert!(!self.needs_texts);
        self.total += bytes;
    }
}

/// Bodies whose strings have escapes, halves of surrogates, control characters, bytes that are no UTF-8 and no end.
fn broken_bodies() -> impl Strategy<Value = Vec<u8>> {
    let good: Vec<&[u8]> =
        vec![b"a", "é😀".as_bytes(), br"\n", br#"\""#, br"\\", br"\u0041", br"\u00e9", br"\ud83d\ude00"];
    let bad: Vec<&[u8]> =
        vec![br"\ud83d", br"\ude00", br"\ud83d\n", br"\x", br"\u12", b"\n", b"\x01", b"\xff", b"\"", br"\"];
    let piece = prop_oneof![12 => prop::sample::select(good), 1 => prop::sample::select(bad)];
    let inside = prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat());
    let name = prop::sample::select(vec!["text", r"te\u0078t", "role", "name", "other"]);
    let colon = prop::sample::select(vec![":", ": ", " :", ":\n"]);
    let member = (name, colon, inside).prop_map(|(name, colon, inside)| {
        [b"{\"", name.as_bytes(), b"\"", colon.as_bytes(), b"\"", &inside, b"\"}"].concat()
    });
    let members = prop::collection::vec(member, 0..6);
    (members, prop::option::weighted(0.5, any::<prop::sample::Index>())).prop_map(|(members, end)| {
        let mut body = [b"{\"contents\":[{\"parts\":[", &*members.join(&b",\n"[..]), b"]}]}"].concat();
        body.truncate(end.map_or(body.len(), |end| end.index(body.len())));
        body
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn a_body_reads_alike_however_its_strings_are_taken(body in broken_bodies()) {
        let [taken, counted] = [true, false].map(|needs_texts| {
            let mut bytes = TextBytes { needs_texts, total: 0 };
            (format!("{:?}", scan(&body, &mut bytes)), bytes.total)
        });
        prop_assert_eq!(&taken, &counted, "{}", body.escape_ascii());
        // A walk that decodes each string is the reader of JSON's own.
        let mut bytes = TextBytes { needs_texts: true, total: 0 };
        let mut walk = BodyWalk { decodes: true, ..BodyWalk::new(&body, &mut bytes) };
        let read = walk.walk().map_err(|error| unread(&body, &error));
        let decoded = format!("{:?}", read.map(|()| walk.findings));
        prop_assert_eq!(&taken.0, &decoded, "{}", body.escape_ascii());
        if decoded.starts_with("Ok") {
            prop_assert_eq!(taken.1, bytes.total);
        }
    }
}
