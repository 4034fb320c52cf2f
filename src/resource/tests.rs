use super::*;

/// Returns what a body names; what is not certain has a question mark.
fn in_body(body: &str) -> Vec<String> {
    let mark = |is_certain: bool| if is_certain { "" } else { "?" };
    Mentions::new(body.as_bytes()).map(|found| format!("{}{}", found.resource.0, mark(found.is_certain))).collect()
}

#[test]
fn what_a_path_names() {
    for (path, expected) in [
        ("/v1beta/files/abc", Some("files/abc")),
        ("/relay/v1beta/files/abc:download?alt=media", Some("files/abc")),
        ("/download/v1beta/files/abc:download", Some("files/abc")),
        ("/v1beta/files/abc%3Adownload?alt=media", Some("files/abc")),
        ("/v1beta/files%2Fabc", Some("files/abc")),
        ("/v1beta/interactions/v1_x%3D%3D", Some("interactions/v1_x==")),
        ("/v1beta/tunedModels/t:generateContent", Some("tunedModels/t")),
        ("/v1beta/models/veo-3/operations/op", Some("operations/op")),
        ("/v1beta/openai/files/f", Some("files/f")),
        ("/v1beta/openai/responses/r/cancel", Some("responses/r")),
        ("/v1beta/interactions/i1", Some("interactions/i1")),
        ("/v1beta/environments/e/files/a/b.txt", Some("environments/e")),
        ("/v1beta/fileSearchStores/s/documents/d", Some("fileSearchStores/s")),
        ("/v1/projects/p/locations/l/cachedContents/c", Some("cachedContents/c")),
        ("/upload/v1beta/files?upload_id=AB_1&upload_protocol=resumable", Some("upload_id/AB_1")),
        ("/upload/v1beta/files", None),
        ("/v1beta/files", None),
        ("/v1beta/files/", None),
        ("/v1beta/models/files:generateContent", None),
        ("/v1beta/models/gemini-2.5-pro:generateContent", None),
        ("/files/abc", None),
    ] {
        let found = Resource::in_uri(&path.parse().unwrap()).map(|resource| resource.0);
        assert_eq!(found.as_deref(), expected, "{path}");
    }
}

#[test]
fn the_collection_that_a_path_leads_to() {
    for (path, expected) in [
        ("/v1beta/files", Some("files")),
        ("/upload/v1beta/files", Some("files")),
        ("/v1/files:register", Some("files")),
        ("/v1beta/interactions", Some("interactions")),
        ("/v1beta/environments:create", Some("environments")),
        ("/v1/projects/p/locations/l/interactions:createStream", Some("interactions")),
        ("/v1beta/openai/videos", Some("videos")),
        ("/v1beta/environments/e/files", None),
        ("/v1beta/files/f:download", None),
        ("/v1beta/models/m:batchGenerateContent", None),
    ] {
        assert_eq!(Resource::collection_in_path(path), expected, "{path}");
    }
    assert_eq!(Resource::asked_collection("/v1beta/environments/e"), Some("environments"));
    assert_eq!(Resource::asked_collection("/v1beta/triggers/t/executions"), None);
}

#[test]
fn each_member_of_a_body_names_a_resource_in_both_spellings() {
    let uri = "https://generativelanguage.googleapis.com/v1beta/files/a:download?alt=media";
    for (members, value, expected) in [
        (["fileUri", "file_uri"], uri, "files/a"),
        (["uri", "uri"], uri, "files/a"),
        (["url", "image_url"], uri, "files/a?"),
        (["fileUri", "gcs_uri"], "gs://bucket/v1/files/a", "gs/bucket/v1/files/a?"),
        (["fileName", "file_name"], "files/a", "files/a"),
        (["fileName", "file_name"], uri, "files/a"),
        (["inputFileId", "input_file_id"], "abc", "files/abc"),
        (["inputFileId", "input_file_id"], "files/abc", "files/abc"),
        (["fileId", "file_id"], "file-abc", "files/file-abc"),
        (["fileId", "file_id"], "files/abc", "files/abc"),
        (["fileId", "file_id"], "abc", "files/abc?"),
        (["cachedContent", "cached_content"], "cachedContents/c", "cachedContents/c"),
        (["cachedContent", "cached_content"], "projects/p/locations/l/cachedContents/c", "cachedContents/c"),
        (["cachedContent", "cached_content"], "https://h/relay/v1/cachedContents/c", "cachedContents/c"),
        (["fileSearchStoreNames", "file_search_store_names"], "fileSearchStores/s", "fileSearchStores/s"),
        (["previousInteractionId", "previous_interaction_id"], "v1_x", "interactions/v1_x"),
        (["previousInteractionId", "previous_interaction_id"], "interactions/v1_x", "interactions/v1_x"),
        (["previousResponseId", "previous_response_id"], "resp_1", "responses/resp_1"),
        (["environment", "environmentId"], "environments/e", "environments/e"),
        (["environment", "environment_id"], "env_1", "environments/env_1?"),
        (["environment", "environment"], "remote", "environments/remote?"),
        (["agent", "agent"], "deep-research-pro-preview", "agents/deep-research-pro-preview?"),
        (["agent", "baseAgent"], "agents/mine", "agents/mine?"),
        (["voice", "voiceName"], "voices/v", "voices/v?"),
        (["voice", "voice_name"], "Kore", "voices/Kore?"),
        (["model", "tunedModel"], "tunedModels/t", "tunedModels/t"),
        (
            ["operationName", "operation_name"],
            "projects/p/locations/l/publishers/google/models/veo/operations/o",
            "operations/o",
        ),
        (["corpus", "corpus"], "corpora/c", "corpora/c"),
        (["ragStore", "rag_store"], "ragStores/r", "ragStores/r"),
        (["video", "video_id"], "video_1", "videos/video_1?"),
        // A full name is found wherever it stands, if a project has made it.
        (["nobodyKnows", "nobody_knows"], "webhooks/w", "webhooks/w?"),
    ] {
        for member in members {
            for body in [
                format!(r#"{{"{member}":"{value}"}}"#),
                format!("{{\n  \"a\": [{{\"{member}\" :\t\"{value}\"}}]\n}}"),
                format!(r#"{{"{member}":"{}"}}"#, value.replace('/', "\\/")),
            ] {
                if body.contains("nobody") && body.contains("\\/") {
                    continue;
                }
                assert_eq!(in_body(&body), [expected], "{body}");
            }
        }
    }
}

#[test]
fn all_names_of_a_body_are_found_in_their_order() {
    assert_eq!(in_body(r#"[{"fileUri": "files/a"}, {"fileUri": "files/b"}]"#), ["files/a", "files/b"]);
    let stores =
        r#"{"file_search_store_names": [ "fileSearchStores/s" , "fileSearchStores/t", 1, "corpora/c"], "agent":"a"}"#;
    assert_eq!(in_body(stores), ["fileSearchStores/s", "fileSearchStores/t", "corpora/c?", "agents/a?"]);
    assert_eq!(in_body(r#"{"files": ["files/a", "files/b"]}"#), ["files/a?", "files/b?"]);
    assert_eq!(in_body(r#"{"video": { "id" : "video_1"}, "voice":{"id":"v"}}"#), ["videos/video_1?", "voices/v?"]);
    let token = in_body(r#"{"continuationToken":"a\u003d=","x":{"continuation_token": "a=\u003D"}}"#);
    assert_eq!((token.len(), &token[0]), (2, &token[1]));
    assert!(token[0].starts_with("continuation/"), "{token:?}");
}

#[test]
fn what_is_nobodys_or_only_text_names_nothing() {
    for body in [
        r#"{"fileUri": "https://www.youtube.com/watch?v=files/abc"}"#,
        r#"{"fileUri": "s3://bucket/v1/files/a", "url": "https://h/files/a"}"#,
        r#"{"text": "{\"fileUri\": \"files/abc\", \"cachedContent\": \"cachedContents/x\"}"}"#,
        r#"{"args": {"fileName": "src/files/main.rs", "path": "docs/files/x", "uri": "a/b"}}"#,
        r#"{"fileName": "report.pdf", "model": "models/gemini-2.5-pro"}"#,
        r#"{"environment": {"type": "remote"}, "agent": null, "voice": ["a"#,
        r#"{"cachedContent": null, "fileUri": 1, "file_uri""#,
        "\"cachedContent\"",
        "\"",
        "",
    ] {
        assert_eq!(in_body(body), Vec::<String>::new(), "{body}");
    }
}

#[test]
fn results_tell_their_batch() {
    let batch = |name: &str| Resource::in_name(name).unwrap().batch_of_results().map(|batch| batch.0.to_string());
    assert_eq!(batch("files/batch-b1"), Some("batches/b1".to_owned()));
    assert_eq!([batch("files/batch-"), batch("files/b1"), batch("batches/b1")], [None, None, None]);
}

#[test]
fn a_long_name_is_none() {
    let long = "x".repeat(600);
    assert_eq!(Resource::in_name(&format!("files/{long}")), None);
    assert_eq!(in_body(&format!(r#"{{"fileUri":"data:{}","fileUri":"files/a"}}"#, "x".repeat(9_000))), ["files/a"]);
}

#[test]
fn only_what_is_certain_binds_a_call_of_unknown_owner() {
    let body = br#"{"agent": "a", "voice": "v", "environment": "remote", "x": "files/x", "fileUri": "files/f"}"#;
    assert_eq!(Resource::in_body(body).map(|resource| resource.0.to_string()).collect::<Vec<_>>(), ["files/f"]);
}

proptest::proptest! {
    #[test]
    fn no_body_panics(body in "[\"\\\\:,{}\\[\\] a-zA-Z/_]{0,120}") {
        Mentions::new(body.as_bytes()).for_each(drop);
    }

    #[test]
    fn a_name_is_found_in_any_json(filler in "\\PC{0,40}", before in 0usize..4) {
        let filler = vec![serde_json::json!({ "text": filler, "n": [1, null] }); before];
        let body = serde_json::json!({ "contents": filler, "fileUri": "files/abc" }).to_string();
        proptest::prop_assert!(in_body(&body).contains(&"files/abc".to_owned()), "{body}");
    }
}
